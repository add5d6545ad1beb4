//! The catalog of a database, as one query tells it: enough to see that a program has changed a database it was not meant for,
//! and what. Rows are not looked at, and neither are temporary objects, extensions' own objects, and our ledger.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use crate::outside::postgres::{PgError, query_error};

/// Every object by kind and name, with a text that changes when it does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalog(BTreeMap<String, String>);

const READ: &str = "
with mine as (
    select oid, nspname, nspowner, nspacl from pg_namespace
    where nspname !~ '^pg_' and nspname not in ('information_schema', 'migrate')
), foreign_objects as (
    select classid, objid from pg_depend where deptype = 'e'
), found (what, definition) as (
    select 'schema ' || nspname, concat_ws('|', nspowner, nspacl::text) from mine
    union all
    select format('%s %s.%s', case c.relkind when 'r' then 'table' when 'p' then 'table' when 'v' then 'view' when 'm' then
        'materialised view' when 'S' then 'sequence' when 'f' then 'foreign table' when 'i' then 'index' when 'I' then 'index'
        else 'relation' end, n.nspname, c.relname),
        concat_ws('|', c.relowner, c.relacl::text, c.reloptions::text, c.relrowsecurity, c.relforcerowsecurity,
            case when c.relkind in ('v', 'm') then pg_get_viewdef(c.oid) when c.relkind in ('i', 'I') then
            pg_get_indexdef(c.oid) end,
            (select string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
                a.attgenerated, pg_get_expr(d.adbin, d.adrelid)), ',' order by a.attnum)
             from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
             where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and c.relkind not in ('i', 'I', 'S')))
    from pg_class c join mine n on n.oid = c.relnamespace
    where c.relpersistence <> 't' and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f', 'i', 'I')
        and (c.oid) not in (select objid from foreign_objects where classid = 'pg_class'::regclass)
    union all
    select format('constraint %s on %s', k.conname, coalesce(k.conrelid::regclass::text, k.contypid::regtype::text)),
        concat_ws('|', pg_get_constraintdef(k.oid), k.convalidated)
    from pg_constraint k join mine n on n.oid = k.connamespace
    union all
    select format('function %s.%s(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
        concat_ws('|', p.prosrc, p.prosqlbody::text, p.prorettype, p.proowner, p.proacl::text, p.proconfig::text, p.provolatile)
    from pg_proc p join mine n on n.oid = p.pronamespace
    where p.oid not in (select objid from foreign_objects where classid = 'pg_proc'::regclass)
    union all
    select format('trigger %s on %s', t.tgname, t.tgrelid::regclass), concat_ws('|', pg_get_triggerdef(t.oid), t.tgenabled)
    from pg_trigger t join pg_class c on c.oid = t.tgrelid join mine n on n.oid = c.relnamespace where not t.tgisinternal
    union all
    select format('type %s.%s', n.nspname, t.typname), concat_ws('|', t.typtype, t.typowner, t.typnotnull, t.typdefault,
        (select string_agg(e.enumlabel, ',' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid))
    from pg_type t join mine n on n.oid = t.typnamespace
    where t.typtype in ('e', 'd', 'r') and t.oid not in (select objid from foreign_objects where classid = 'pg_type'::regclass)
    union all
    select format('policy %s on %s', p.polname, p.polrelid::regclass), concat_ws('|', p.polcmd, p.polpermissive,
        p.polroles::text, pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
    from pg_policy p join pg_class c on c.oid = p.polrelid join mine n on n.oid = c.relnamespace
    union all
    select 'extension ' || extname, extversion from pg_extension
)
select what, md5(string_agg(coalesce(definition, ''), '||' order by definition)) from found group by what";

impl Catalog {
    /// The catalog of the database of `session`.
    ///
    /// # Errors
    /// The query failed.
    pub async fn read(session: &mut PgConnection) -> Result<Self, PgError> {
        let rows: Vec<(String, String)> =
            sqlx::query_as(READ).fetch_all(session).await.map_err(query_error("reading the catalog"))?;
        Ok(Self(rows.into_iter().collect()))
    }

    /// What is not as it was before, in words.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        let appeared = self.0.keys().filter(|it| !before.0.contains_key(*it)).map(|it| format!("{it} appeared"));
        let vanished = before.0.keys().filter(|it| !self.0.contains_key(*it)).map(|it| format!("{it} vanished"));
        let changed = self.0.iter().filter(|(it, text)| before.0.get(*it).is_some_and(|before| before != *text));
        appeared.chain(vanished).chain(changed.map(|(it, _)| format!("{it} changed"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_named() {
        let of = |all: &[(&str, &str)]| Catalog(all.iter().map(|(it, text)| ((*it).into(), (*text).into())).collect());
        let (before, after) = (of(&[("a", "1"), ("b", "1"), ("c", "1")]), of(&[("b", "2"), ("c", "1"), ("d", "1")]));
        assert_eq!(after.changes_since(&before), ["d appeared", "a vanished", "b changed"]);
        assert!(after.changes_since(&after).is_empty());
    }
}
