//! Snapshots of databases that are worth dividing: their parts, what is counted as they pass, and how they come back.

mod by_hand;
mod divided;
mod drill;
mod elsewhere;
pub(crate) mod encrypted;
mod faults;
mod prune;
mod roles;

use std::fs;

use serde_json::Value;

use crate::world::TestWorld;

/// Makes a database that is divided: three large tables, and beside them everything that belongs to the data of a dump and is no
/// large table.
pub(crate) const DIVIDED: &str = r#"
    create schema "Sch ema";
    create table rows (id bigint generated always as identity primary key, body text not null, doc jsonb);
    insert into rows (body, doc) select repeat(md5(n::text) || e'\t\\ \n', 8), jsonb_build_object('n', n, 'a', array[n, n])
        from generate_series(1, 60000) n;
    create table "Sch ema"."ta""ble*" (id int primary key, numbers float8[], vector bytea) with (autovacuum_enabled = off);
    insert into "Sch ema"."ta""ble*" select n, (select array_agg(sin(n * m)) from generate_series(1, 60) m), decode(md5(n::text), 'hex')
        from generate_series(1, 36000) n;
    create table part (id int, at date, body text, primary key (id, at)) partition by range (at);
    create table part_1 partition of part for values from ('2026-01-01') to ('2026-07-01');
    create table part_2 partition of part for values from ('2026-07-01') to ('2027-01-01');
    insert into part select n, '2026-01-01'::date + n % 365, repeat(md5(n::text), 12) from generate_series(1, 9000) n;
    create table small (id serial primary key, row_id bigint references rows, twice int generated always as (id * 2) stored);
    insert into small (row_id) select n from generate_series(1, 50) n;
    create table empty (id int);
    create sequence apart start 17;
    select nextval('apart'), nextval('apart');
    create materialized view seen as select count(*) n from rows;
    create index rows_body on rows (md5(body));
    create index rows_doc on rows using gin (doc);
    grant select on rows to public;
    grant update (doc) on rows to public;
    comment on table rows is 'many';
    comment on column rows.doc is 'JSON';
    comment on index rows_body is 'found by it';
    comment on constraint rows_pkey on rows is 'key';
    alter default privileges grant select on tables to public;
    create function twice(int) returns int language sql as 'select $1 * 2';
    create trigger same before update on rows for each row execute function suppress_redundant_updates_trigger();
    create rule quiet as on delete to empty do instead nothing;
    alter table small enable row level security;
    create policy mine on small using (id < 1000);
    create statistics both_of on id, doc from rows;
    select lo_create(4711);
    analyze;
    select lo_put(4711, 0, '\x00ff0a74657874');
"#;

/// A world with one divided database, a release for it, and a line for `[store]`.
pub(crate) async fn divided(hint: &str, store: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["big"]).await;
    world.sql("big", DIVIDED).await;
    world.sql_plan("");
    let plan = std::fs::read_to_string(world.path().join("plans/production.toml")).expect("written");
    world.file("plans/production.toml", &plan.replace("[store]\n", &format!("[run]\njobs = 2\n[store]\n{store}\n")));
    world.file("migrations/big/001_more.sql", "alter table rows add column more int default 1;\n");
    world
}

/// Changes the manifest in the store, as nobody should.
fn falsify(world: &TestWorld, change: impl FnOnce(&mut Value)) {
    let path = world.object("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).expect("there")).expect("JSON");
    change(&mut manifest);
    fs::write(&path, manifest.to_string()).expect("ours");
}
