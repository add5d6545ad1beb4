//! How a database is divided into archives that are dumped and restored side by side: the schema before its data, the data of
//! large tables one by one and of the others together, the schema after its data.

use serde::{Deserialize, Serialize};

use crate::sql::quote::identifier;

/// A database with less than this in its tables, in bytes, is one archive: reading its catalogs three times would take
/// longer than its data does.
const WORTH_DIVIDING: u64 = 32 << 20;
/// The data of a large database is divided into about so many archives, so that a restore with more cores than the dump
/// had can use them.
const DIVISIONS: u64 = 8;
/// An archive of less than this, in bytes, is not worth another `pg_dump`.
const SMALLEST: u64 = 32 << 20;
/// Tables that are named to `pg_dump` one by one. The others go together.
const NAMED: usize = 200;

/// What an archive holds, in the words of `pg_dump --section`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    /// Everything.
    Whole,
    /// Schemas, types, functions, tables without their indexes and constraints.
    PreData,
    /// Rows, values of sequences, large objects.
    Data,
    /// Indexes, constraints, triggers, the content of materialised views.
    PostData,
}

/// A table, and about what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSize {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// About how many bytes it has, without its indexes.
    pub bytes: u64,
}

/// One archive that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portion {
    /// The object's name, without the ending of its compression. By name, portions are in the order of a restore.
    pub name: String,
    /// What it holds.
    pub section: Section,
    /// About how many bytes that takes on the server.
    pub bytes: u64,
    /// What `pg_dump` is told.
    pub args: Vec<String>,
}

impl Portion {
    fn new(name: &str, section: Section, args: Vec<String>) -> Self {
        Self { name: format!("{name}.dump"), section, bytes: 0, args }
    }

    fn of_tables(number: usize, tables: &[&TableSize]) -> Self {
        let named = tables.iter().map(|it| format!("--table={}", pattern(it)));
        let args = std::iter::once("--section=data".to_owned()).chain(named).collect();
        let bytes = tables.iter().map(|it| it.bytes).sum();
        Self { bytes, ..Self::new(&format!("2-data-{number:02}"), Section::Data, args) }
    }
}

/// Quoted, a name is no pattern.
fn pattern(table: &TableSize) -> String {
    format!("{}.{}", identifier(&table.schema), identifier(&table.name))
}

/// The archives of a database with these tables, those first that take longest.
#[must_use]
pub fn portions(tables: &[TableSize]) -> Vec<Portion> {
    let total: u64 = tables.iter().map(|it| it.bytes).sum();
    if total < WORTH_DIVIDING {
        return vec![Portion::new("archive", Section::Whole, Vec::new())];
    }
    let bins = bins(tables, (total / DIVISIONS).max(SMALLEST));
    let mut portions: Vec<Portion> = bins.iter().enumerate().map(|(at, bin)| Portion::of_tables(at + 1, bin)).collect();
    // What nobody named: small tables, those of extensions, sequences, large objects, and whatever a later version brings.
    let except = bins.iter().flatten().map(|it| format!("--exclude-table={}", pattern(it)));
    let args = std::iter::once("--section=data".to_owned()).chain(except).collect();
    portions.push(Portion::new("2-data-rest", Section::Data, args));
    portions.push(Portion::new("1-pre-data", Section::PreData, vec!["--section=pre-data".into()]));
    portions.push(Portion::new("3-post-data", Section::PostData, vec!["--section=post-data".into()]));
    portions
}

/// Tables that go together, about `size` bytes in each bin, the fullest bin first.
fn bins(tables: &[TableSize], size: u64) -> Vec<Vec<&TableSize>> {
    let mut sorted: Vec<&TableSize> = tables.iter().filter(|it| it.bytes > 0).collect();
    sorted.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| (&a.schema, &a.name).cmp(&(&b.schema, &b.name))));
    sorted.truncate(NAMED);
    let mut bins: Vec<(u64, Vec<&TableSize>)> = Vec::new();
    for table in sorted {
        match bins.iter_mut().find(|(filled, _)| filled + table.bytes <= size) {
            Some((filled, bin)) => {
                *filled += table.bytes;
                bin.push(table);
            }
            None => bins.push((table.bytes, vec![table])),
        }
    }
    // The last bin of small tables is left to the rest.
    bins.retain(|(filled, _)| *filled >= size / 2);
    bins.sort_by_key(|(filled, _)| std::cmp::Reverse(*filled));
    bins.into_iter().map(|(_, bin)| bin).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn tables(sizes: &[u64]) -> Vec<TableSize> {
        let table =
            |(at, bytes): (usize, &u64)| TableSize { schema: "public".into(), name: format!("t{at}"), bytes: *bytes };
        sizes.iter().enumerate().map(table).collect()
    }

    fn told(portions: &[Portion]) -> Vec<String> {
        portions.iter().map(|it| format!("{} {}", it.name, it.args.join(" "))).collect()
    }

    #[test]
    fn a_small_database_is_one_archive() {
        assert_eq!(told(&portions(&[])), ["archive.dump "]);
        assert_eq!(told(&portions(&tables(&[MIB, 30 * MIB]))), ["archive.dump "]);
    }

    #[test]
    fn large_tables_go_alone_and_first() {
        let found = told(&portions(&tables(&[MIB, 900 * MIB, 50 * MIB, 60 * MIB, 0])));
        let expected = [
            r#"2-data-01.dump --section=data --table="public"."t1""#,
            r#"2-data-02.dump --section=data --table="public"."t3" --table="public"."t2" --table="public"."t0""#,
            r#"2-data-rest.dump --section=data --exclude-table="public"."t1" --exclude-table="public"."t3" --exclude-table="public"."t2" --exclude-table="public"."t0""#,
            "1-pre-data.dump --section=pre-data",
            "3-post-data.dump --section=post-data",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_name_is_no_pattern() {
        let table = TableSize { schema: "A.b".into(), name: "x*\"y".into(), bytes: 64 * MIB };
        assert_eq!(portions(&[table])[0].args[1], r#"--table="A.b"."x*""y""#);
    }

    proptest! {
        #[test]
        fn every_table_is_in_one_portion(sizes in proptest::collection::vec(0u64..200 << 20, 0..300)) {
            let tables = tables(&sizes);
            let found = portions(&tables);
            let rest = found.iter().find(|it| it.name == "2-data-rest.dump");
            for table in &tables {
                let named = |it: &&Portion| it.args.contains(&format!("--table={}", pattern(table)));
                let times = found.iter().filter(named).count();
                let excluded = rest.is_some_and(|it| it.args.contains(&format!("--exclude-table={}", pattern(table))));
                prop_assert!(times == usize::from(excluded), "{} is named {times} times", table.name);
            }
            let mut names: Vec<&str> = found.iter().map(|it| it.name.as_str()).collect();
            names.sort_unstable();
            let sections: Vec<Section> =
                names.iter().map(|name| found.iter().find(|it| it.name == *name).expect("there").section).collect();
            prop_assert!(sections.is_sorted(), "by name, portions are in the order of a restore");
        }
    }
}
