//! What of the schema after its data can be built on a table as soon as that table's rows are in, and in which order.

use std::collections::{BTreeMap, VecDeque};

use super::loading::Loaded;
use super::manifest::Index;

/// A row's byte of COPY's text costs a server about a third of what a byte of a tree does.
const COST_OF_INDEXES: u64 = 3;
/// Gathering statistics reads as much of a table as this at most, of COPY's text, and costs a fourth of loading it.
const MOST_ANALYZED: u64 = 256 << 20;
const ANALYZED_PER_COST: u64 = 4;
/// A table with fewer bytes than this, of COPY's text, waits for its statistics until all is built.
const WORTH_ANALYZING: u64 = 16 << 20;

/// What gathering the statistics of a table with so many bytes costs, of COPY's text; nothing, if that waits.
pub(super) fn cost_of_statistics(bytes: u64) -> u64 {
    if bytes < WORTH_ANALYZING { 0 } else { bytes.min(MOST_ANALYZED) / ANALYZED_PER_COST }
}

/// A schema and a name in it.
pub(super) type Name = (String, String);

/// What is done with a table whose rows are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// These lines of the list of an archive are restored.
    Build(String),
    /// Statistics are gathered.
    Analyze,
}

/// Something that can begin now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) table: Name,
    pub(super) what: What,
    /// How long it takes, with what waits for it, beside others: as so many bytes of rows do.
    pub(super) cost: u64,
}

/// A table on its way: what is done with it one after the other, each step side by side.
#[derive(Debug, Default)]
struct Table {
    steps: VecDeque<Vec<Work>>,
    under_way: usize,
    is_loaded: bool,
}

impl Table {
    /// How long all that is left takes.
    fn cost(&self) -> u64 {
        self.steps.iter().filter_map(|step| step.iter().map(|it| it.cost).max()).sum()
    }
}

/// What is left to do with the tables of a database.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    tables: BTreeMap<Name, Table>,
}

impl Schedule {
    /// Takes out of `list`, as `pg_restore --list` prints it, what does not wait for anything but the rows of one table: its large
    /// indexes, and the constraints that bring some. Gives the other lines as well.
    pub(super) fn of(list: &str, indexes: &[Index]) -> (Self, String) {
        let mut it = Self::default();
        let mut rest: Vec<&str> = list.lines().collect();
        for index in indexes {
            let Some(of) = &index.table else { continue };
            let (schema, name) = (&index.schema, &index.name);
            let (alone, constraint) = (format!("INDEX {schema} {name} "), format!("CONSTRAINT {schema} {of} {name} "));
            let mut places = (0..rest.len())
                .filter(|at| entry(rest[*at]).is_some_and(|it| it.starts_with(&alone) || it.starts_with(&constraint)));
            // Names with blanks in them could mean two things: those wait.
            let (Some(at), None) = (places.next(), places.next()) else { continue };
            let is_constraint = entry(rest[at]).is_some_and(|it| it.starts_with(&constraint));
            it.add((schema.clone(), of.clone()), rest.remove(at), index.cost() * COST_OF_INDEXES, is_constraint);
        }
        (it, rest.iter().map(|line| format!("{line}\n")).collect())
    }

    fn add(&mut self, table: Name, line: &str, cost: u64, is_constraint: bool) {
        let steps = &mut self.tables.entry(table.clone()).or_default().steps;
        if steps.is_empty() {
            steps.extend([Vec::new(), Vec::new()]);
        }
        // Constraints lock out everything else, and so they come one after the other, before the indexes.
        match (is_constraint, steps[0].first_mut()) {
            (true, Some(Work { what: What::Build(lines), cost: all, .. })) => {
                *lines += &format!("{line}\n");
                *all += cost;
            }
            _ => steps[usize::from(!is_constraint)].push(Work { table, what: What::Build(format!("{line}\n")), cost }),
        }
    }

    /// What can begin, now that the rows of a table are in.
    pub(super) fn loaded(&mut self, it: &Loaded) -> Vec<Work> {
        let name = (it.schema.clone(), it.name.clone());
        let table = self.tables.entry(name.clone()).or_default();
        table.is_loaded = true;
        let cost = cost_of_statistics(it.bytes);
        if cost > 0 {
            table.steps.push_back(vec![Work { table: name.clone(), what: What::Analyze, cost }]);
        }
        self.next(&name)
    }

    /// What can begin, now that something is done with a table.
    pub(super) fn done(&mut self, name: &Name) -> Vec<Work> {
        if let Some(table) = self.tables.get_mut(name) {
            table.under_way = table.under_way.saturating_sub(1);
        }
        self.next(name)
    }

    fn next(&mut self, name: &Name) -> Vec<Work> {
        let Some(table) = self.tables.get_mut(name).filter(|it| it.under_way == 0) else { return Vec::new() };
        while let Some(mut step) = table.steps.pop_front() {
            if !step.is_empty() {
                let later = table.cost();
                step.iter_mut().for_each(|it| it.cost += later);
                table.under_way = step.len();
                return step;
            }
        }
        Vec::new()
    }

    /// The longest that waits for rows that are not in yet.
    pub(super) fn waiting(&self) -> u64 {
        self.tables.values().filter(|it| !it.is_loaded).map(Table::cost).max().unwrap_or_default()
    }

    /// What waits for the rows of a table.
    pub(super) fn behind(&self, table: &Name) -> u64 {
        self.tables.get(table).map_or(0, Table::cost)
    }

    /// The lines that never began: rows that did not come as those of a table.
    pub(super) fn left(self) -> String {
        let works = self.tables.into_values().flat_map(|it| it.steps).flatten();
        works.filter_map(|it| if let What::Build(lines) = it.what { Some(lines) } else { None }).collect()
    }
}

/// The kind, the schema and the name of a line of `pg_restore --list`, and what follows; nothing, if it is a comment.
pub(super) fn entry(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("; ").filter(|(id, _)| !id.is_empty())?;
    rest.splitn(3, ' ').nth(2)
}

/// The lines of `pg_restore --list`, those of the slowest indexes first.
pub(super) fn slowest_first(list: &str, indexes: &[Index]) -> String {
    let place = |line: &str| {
        let is_of = |it: &Index| {
            let (index, constraint) =
                (format!(" INDEX {} {} ", it.schema, it.name), format!(" CONSTRAINT {} ", it.schema));
            line.contains(&index) || (line.contains(&constraint) && line.contains(&format!(" {} ", it.name)))
        };
        indexes.iter().position(is_of).unwrap_or(indexes.len())
    };
    let mut lines: Vec<(usize, &str)> = list.lines().map(|line| (place(line), line)).collect();
    lines.sort_by_key(|(place, _)| *place);
    lines.into_iter().map(|(_, line)| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = ";\n; Archive created at …\n3201; 1259 16402 INDEX public small release\n\
        3202; 2606 16400 CONSTRAINT public big big_pkey release\n3203; 1259 16409 INDEX public vectors release\n\
        3204; 2606 16411 FK CONSTRAINT public big big_fkey release\n3205; 2606 16419 CONSTRAINT public big big_key release\n\
        3206; 0 0 COMMENT public INDEX vectors release\n";

    fn index(name: &str, table: &str, bytes: u64) -> Index {
        let (schema, method) = ("public".into(), "btree".into());
        Index { schema, name: name.into(), table: Some(table.into()), method, bytes }
    }

    fn loaded(name: &str, bytes: u64) -> Loaded {
        Loaded { schema: "public".into(), name: name.into(), rows: 1, bytes }
    }

    fn told(works: &[Work]) -> Vec<String> {
        let word = |it: &Work| match &it.what {
            What::Build(lines) => {
                format!("{}: {}", it.cost, lines.lines().map(|it| &it[..4]).collect::<Vec<_>>().join(" "))
            }
            What::Analyze => format!("{}: analyze", it.cost),
        };
        works.iter().map(word).collect()
    }

    #[test]
    fn the_slowest_come_first_and_nothing_is_lost() {
        let sorted = slowest_first(LIST, &[index("vectors", "big", 9), index("big_pkey", "big", 1)]);
        let numbers: Vec<&str> = sorted.lines().filter_map(|it| it.get(..4)).collect();
        assert_eq!(numbers, ["3203", "3202", "; Ar", "3201", "3204", "3205", "3206"]);
    }

    #[test]
    fn what_waits_for_one_table_alone_begins_when_its_rows_are_in() {
        let indexes = [index("vectors", "big", 9), index("big_pkey", "big", 1), index("big_key", "big", 2)];
        let (mut it, rest) = Schedule::of(LIST, &indexes);
        let numbers: Vec<&str> = rest.lines().filter_map(|it| it.get(..4)).collect();
        assert_eq!(numbers, ["; Ar", "3201", "3204", "3206"]);
        let name: Name = ("public".into(), "big".into());
        assert_eq!(
            [it.waiting(), it.behind(&name), it.behind(&("public".into(), "other".into()))],
            [9 + 27, 9 + 27, 0]
        );
        assert_eq!(told(&it.loaded(&loaded("big", WORTH_ANALYZING))), ["4194340: 3202 3205"]);
        assert_eq!(it.waiting(), 0);
        assert_eq!(told(&it.done(&name)), ["4194331: 3203"]);
        assert_eq!(told(&it.done(&name)), ["4194304: analyze"]);
        assert_eq!(told(&it.done(&name)), [""; 0]);
        assert_eq!(told(&it.loaded(&loaded("other", 1))), [""; 0]);
        assert_eq!(it.left(), "");
    }

    #[test]
    fn what_never_began_is_left() {
        let (it, _) = Schedule::of(LIST, &[index("vectors", "big", 9), index("big_pkey", "big", 1)]);
        assert_eq!(it.left().lines().map(|it| &it[..4]).collect::<Vec<_>>(), ["3202", "3203"]);
    }

    #[test]
    fn a_name_that_could_mean_two_things_waits() {
        let list = "1; 1 1 INDEX a b c owner\n2; 1 2 INDEX a b c owner\n";
        let (_, rest) = Schedule::of(list, &[Index { schema: "a b".into(), ..index("c", "t", 1) }]);
        assert_eq!(rest, list);
    }
}
