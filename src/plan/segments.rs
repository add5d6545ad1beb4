//! Steps, cut where a migration waits for one of another step: the stretches of migrations that are carried out in one go, and
//! their order. A step that neither waits nor is waited for in its middle is one segment.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::Step;
use super::order::{Cycle, Node, order};
use crate::failure::list;
use crate::kind::{Kind, Migration};
use crate::sql::directives::Edge;

/// So many names are shown where one is not known.
const SHOWN: usize = 8;

/// A stretch of a step's migrations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The step, by its place in [`super::Plan::steps`].
    pub step: usize,
    /// Places in the step's list of migrations.
    pub range: Range<usize>,
    /// Segments that must be over before, directly or through others, by their places in [`super::Plan::segments`].
    pub behind: BTreeSet<usize>,
}

/// A `-- migrate:after` that cannot be kept.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum EdgeError {
    /// There is no such step.
    #[error("{place}: `migrate:after {edge}` names a step that the plan does not have")]
    #[diagnostic(code("plan.edge_step"), help("The plan has {known}."))]
    Step {
        /// File and line.
        place: String,
        /// As typed.
        edge: String,
        /// The steps.
        known: String,
    },
    /// The step has no such migration.
    #[error("{place}: `migrate:after {edge}` names a migration that the step does not have")]
    #[diagnostic(code("plan.edge_name"), help("The step has {known}."))]
    Name {
        /// File and line.
        place: String,
        /// As typed.
        edge: String,
        /// Its migrations.
        known: String,
    },
    /// It is one of the same step, and comes later.
    #[error("{place}: `migrate:after {edge}` names a migration of the same step that does not come before it")]
    #[diagnostic(
        code("plan.edge_later"),
        help("Within a step, files run by number, then by name, and repeatable ones last: rename one of the two.")
    )]
    Later {
        /// File and line.
        place: String,
        /// As typed.
        edge: String,
    },
    /// Each waits for the next, and the last for the first.
    #[error("migrations wait for each other in a circle:\n{}", waits.join("\n"))]
    #[diagnostic(
        code("plan.edge_cycle"),
        help("Remove one of the lines `-- migrate:after`, or move what waits into a file of its own.")
    )]
    Cycle {
        /// Who waits for whom, and where that is written.
        waits: Vec<String>,
    },
}

/// The names that migrations of a step have in the ledger; none where only Alembic knows them.
fn names(kind: &Kind) -> Option<Vec<&str>> {
    match kind {
        Kind::Alembic(_) => None,
        Kind::Copy(it) => Some(vec![it.to.table.as_str()]),
        it => Some(it.migrations().iter().map(|it| it.name.as_str()).collect()),
    }
}

fn by_name(names: Vec<&str>) -> BTreeMap<&str, usize> {
    names.into_iter().enumerate().map(|(at, name)| (name, at)).collect()
}

/// Who waits for whom.
struct Wait {
    /// Step and migration, by their places.
    from: (usize, usize),
    /// Step and migration, by their places.
    to: (usize, usize),
    /// File and line that say so.
    written: String,
}

/// The segments of `steps` in order of execution. The steps themselves are put into the order of their first segments.
pub(super) fn cut(steps: Vec<Step>) -> Result<(Vec<Step>, Vec<Segment>), EdgeError> {
    let waits = waits(&steps)?;
    let parts = parts(&steps, &waits);
    let nodes = nodes(&steps, &parts, &waits);
    let order = order(&nodes).map_err(|cycle| cyclic(&steps, &parts, &waits, &cycle))?;
    let mut place = vec![0; order.len()];
    order.iter().enumerate().for_each(|(at, node)| place[*node] = at);
    let mut turn: Vec<usize> = Vec::with_capacity(steps.len());
    let mut segments: Vec<Segment> = Vec::with_capacity(order.len());
    for node in order {
        let (step, range) = parts[node].clone();
        let at = turn.iter().position(|it| *it == step).unwrap_or_else(|| {
            turn.push(step);
            turn.len() - 1
        });
        let mut behind = BTreeSet::new();
        for before in &nodes[node].after {
            behind.insert(place[*before]);
            behind.extend(&segments[place[*before]].behind);
        }
        segments.push(Segment { step: at, range, behind });
    }
    let mut steps: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
    Ok((turn.into_iter().filter_map(|step| steps[step].take()).collect(), segments))
}

fn waits(steps: &[Step]) -> Result<Vec<Wait>, EdgeError> {
    let mut found = Vec::new();
    // Thousands of migrations are asked for by name at most once for each step that somebody waits for.
    let mut known: BTreeMap<usize, Option<BTreeMap<&str, usize>>> = BTreeMap::new();
    for (step, at, it, edge) in edges(steps) {
        let place = || place(it, edge);
        let to = steps.iter().position(|other| other.name.as_str() == edge.step).ok_or_else(|| {
            let known = list(&steps.iter().map(|it| it.name.as_str()).collect::<Vec<_>>());
            EdgeError::Step { place: place(), edge: edge.to_string(), known }
        })?;
        let names = known.entry(to).or_insert_with(|| names(&steps[to].kind).map(by_name));
        let named = names.as_ref().map_or(Some(0), |names| names.get(edge.name.as_str()).copied());
        let named = named.ok_or_else(|| unknown(it, edge, names.iter().flatten().map(|(name, _)| *name)))?;
        if to != step {
            found.push(Wait { from: (step, at), to: (to, named), written: place() });
        } else if named >= at {
            return Err(EdgeError::Later { place: place(), edge: edge.to_string() });
        }
    }
    Ok(found)
}

/// Every edge, with the step and the migration that it belongs to and their places.
fn edges(steps: &[Step]) -> impl Iterator<Item = (usize, usize, &Migration, &Edge)> {
    steps.iter().enumerate().flat_map(|(step, it)| {
        let migrations = it.kind.migrations().iter().enumerate();
        migrations.flat_map(move |(at, it)| it.turn.after.iter().map(move |edge| (step, at, it, edge)))
    })
}

/// That the migrations of a step that others wait for are among `listed`: for a step whose list is not read with the plan.
///
/// # Errors
/// The first that is not.
pub fn edges_to(steps: &[Step], step: &Step, listed: &[Migration]) -> Result<(), EdgeError> {
    let known = |edge: &Edge| listed.iter().any(|it| it.name == edge.name);
    let missing = edges(steps).find(|(.., edge)| edge.step == step.name.as_str() && !known(edge));
    missing.map_or(Ok(()), |(.., it, edge)| Err(unknown(it, edge, listed.iter().map(|it| it.name.as_str()))))
}

/// File and line.
fn place(it: &Migration, edge: &Edge) -> String {
    format!("{}:{}", it.path.display(), edge.line)
}

/// The error for a name that is none of `known`, which shows those that are most like it.
fn unknown<'a>(it: &Migration, edge: &Edge, known: impl Iterator<Item = &'a str>) -> EdgeError {
    let alike = |name: &str| name.bytes().zip(edge.name.bytes()).take_while(|(a, b)| a == b).count();
    let mut known: Vec<&str> = known.collect();
    known.sort_by_key(|name| std::cmp::Reverse(alike(name)));
    let more = known.len().saturating_sub(SHOWN);
    known.truncate(SHOWN);
    let known = list(&known) + &if more > 0 { format!(", and {more} more") } else { String::new() };
    EdgeError::Name { place: place(it, edge), edge: edge.to_string(), known }
}

/// The steps, cut in front of each migration that waits and behind each that is waited for.
fn parts(steps: &[Step], waits: &[Wait]) -> Vec<(usize, Range<usize>)> {
    let mut cuts: Vec<BTreeSet<usize>> = steps.iter().map(|_| BTreeSet::from([0])).collect();
    for wait in waits {
        cuts[wait.from.0].insert(wait.from.1);
        cuts[wait.to.0].insert(wait.to.1 + 1);
    }
    let of_step = |(step, starts): (usize, BTreeSet<usize>)| {
        // What is not read with the plan is not cut.
        let length = names(&steps[step].kind).map_or(1, |names| names.len()).max(1);
        let starts: Vec<usize> = starts.into_iter().filter(|start| *start < length).chain([length]).collect();
        starts.windows(2).map(|pair| (step, pair[0]..pair[1])).collect::<Vec<_>>()
    };
    cuts.into_iter().enumerate().flat_map(of_step).collect()
}

/// The parts as nodes of the order.
fn nodes<'a>(steps: &'a [Step], parts: &[(usize, Range<usize>)], waits: &[Wait]) -> Vec<Node<'a>> {
    let holds = |(step, at): (usize, usize)| {
        // The parts are sorted by step, and those of a step by their place in it.
        parts.partition_point(|(other, range)| (*other, range.end) <= (step, at))
    };
    let last = |step: usize| parts.partition_point(|(other, _)| *other <= step) - 1;
    let mut nodes: Vec<Node<'a>> = Vec::with_capacity(parts.len());
    for (at, (step, range)) in parts.iter().enumerate() {
        let after = match range.start {
            0 => steps[*step]
                .after
                .iter()
                .filter_map(|name| steps.iter().position(|it| it.name == *name))
                .map(last)
                .collect(),
            _ => vec![at - 1],
        };
        nodes.push(Node { database: steps[*step].database.as_str(), after });
    }
    for wait in waits {
        let (from, to) = (holds(wait.from), holds(wait.to));
        nodes[from].after.push(to);
    }
    nodes
}

/// Says of each part of a cycle why it waits for the next.
fn cyclic(steps: &[Step], parts: &[(usize, Range<usize>)], waits: &[Wait], Cycle(cycle): &Cycle) -> EdgeError {
    let call = |step: usize, at: usize| {
        let name = names(&steps[step].kind).and_then(|names| names.get(at).map(|it| (*it).to_owned()));
        name.map_or(format!("step `{}`", steps[step].name), |name| format!("{}/{name}", steps[step].name))
    };
    let why = |a: usize, b: usize| {
        let ((from, ours), (to, theirs)) = (&parts[a], &parts[b]);
        let (waiter, other) = (call(*from, ours.start), call(*to, theirs.end - 1));
        let mut between = waits.iter().filter(|it| it.from == (*from, ours.start) && it.to.0 == *to);
        match between.find(|it| theirs.contains(&it.to.1)) {
            Some(it) => format!("  {waiter} waits for {other} ({})", it.written),
            None if from == to => format!("  {waiter} comes behind {other} in its step"),
            None => format!("  {waiter} waits for {other}, since `after` of step `{}` says so", steps[*from].name),
        }
    };
    // The next wait begins at the head of the part that the last one ends with.
    let within = |node: usize| {
        let (step, range) = &parts[node];
        let (last, first) = (call(*step, range.end - 1), call(*step, range.start));
        (range.len() > 1).then(|| format!("  {last} comes behind {first} in its step"))
    };
    let next = |at: usize| cycle[(at + 1) % cycle.len()];
    let lines = cycle.iter().enumerate().flat_map(|(at, node)| [Some(why(*node, next(at))), within(next(at))]);
    EdgeError::Cycle { waits: lines.flatten().collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kind::{Files, Turn};
    use crate::names::{DatabaseName, StepName};
    use crate::sql::directives::Budget;

    fn migration(step: &str, name: &str, after: &[&str]) -> Migration {
        let edge = |(line, it): (usize, &&str)| {
            let (step, name) = it.split_once('/').expect("STEP/NAME");
            Edge { step: step.into(), name: name.into(), line: line + 1, place: 0..0 }
        };
        Migration {
            name: name.into(),
            path: format!("{step}/{name}.sql").into(),
            checksum: String::new(),
            up: String::new(),
            down: None,
            irreversible: false,
            transactional: true,
            budget: Budget::default(),
            turn: Turn { repeatable: false, after: after.iter().enumerate().map(edge).collect() },
        }
    }

    /// `s:a` is the step `s` on the database `a`.
    fn step(head: &str, after: &[&str], files: &[(&str, &[&str])]) -> Step {
        let (name, database) = head.split_once(':').expect("step and database");
        let migrations = files.iter().map(|(file, after)| migration(name, file, after)).collect();
        Step {
            name: StepName::new(name).expect("a name"),
            database: DatabaseName::new(database).expect("a name"),
            after: after.iter().map(|it| StepName::new(*it).expect("a name")).collect(),
            lock_timeout: None,
            statement_timeout: None,
            kind: Kind::Sql(Files { dir: name.into(), migrations }),
        }
    }

    /// The segments as `STEP/FIRST-LAST`.
    #[track_caller]
    fn check(steps: Vec<Step>, expected: &str) {
        let (steps, segments) = cut(steps).expect("an order");
        let call = |it: &Segment| {
            let names = names(&steps[it.step].kind).expect("names");
            match it.range.len() {
                1 => format!("{}/{}", steps[it.step].name, names[it.range.start]),
                _ => format!("{}/{}-{}", steps[it.step].name, names[it.range.start], names[it.range.end - 1]),
            }
        };
        assert_eq!(segments.iter().map(call).collect::<Vec<_>>().join(" "), expected);
    }

    #[track_caller]
    fn check_error(steps: Vec<Step>, message: &str) {
        let error = cut(steps).expect_err(message);
        assert_eq!(error.to_string(), message);
        assert!(miette::Diagnostic::help(&error).is_some());
    }

    const THREE: &[(&str, &[&str])] = &[("1", &[]), ("2", &[]), ("3", &[])];

    #[test]
    fn steps_without_edges_are_whole() {
        check(vec![step("s:a", &[], THREE), step("t:b", &["s"], THREE)], "s/1-3 t/1-3");
        check(vec![], "");
    }

    #[test]
    fn a_step_is_cut_where_it_waits_and_where_it_is_waited_for() {
        let waiting = || step("s:a", &[], &[("1", &[]), ("2", &["t/2"]), ("3", &[])]);
        check(vec![waiting(), step("t:b", &[], THREE)], "s/1 t/1-2 s/2-3 t/3");
        check(vec![waiting(), step("t:a", &[], THREE)], "s/1 t/1-2 s/2-3 t/3");
        // What waits first of all puts its step behind.
        check(vec![step("s:a", &[], &[("1", &["t/3"])]), step("t:b", &[], THREE)], "t/1-3 s/1");
        let twice = step("s:a", &[], &[("1", &["t/1", "t/3", "t/3"]), ("2", &["s/1"])]);
        check(vec![twice, step("t:b", &[], THREE)], "t/1 t/2-3 s/1-2");
    }

    #[test]
    fn two_steps_may_wait_for_each_others_middle() {
        let steps = |s: &str, t: &str| {
            let waits: &[(&str, &[&str])] = &[("1", &[]), ("2", &["t/1"]), ("3", &[])];
            let back: &[(&str, &[&str])] = &[("1", &[]), ("2", &["s/2"]), ("3", &[])];
            vec![step(s, &[], waits), step(t, &[], back)]
        };
        check(steps("s:a", "t:b"), "s/1 t/1 s/2 s/3 t/2-3");
        check(steps("s:a", "t:a"), "s/1 t/1 s/2 s/3 t/2-3");
    }

    #[test]
    fn circles_are_named_by_file_and_line() {
        let one = step("s:a", &[], &[("1", &["t/1"]), ("2", &[])]);
        let other = step("t:b", &[], &[("1", &["s/2"])]);
        check_error(
            vec![one, other],
            "migrations wait for each other in a circle:\n  s/1 waits for t/1 (s/1.sql:1)\n  t/1 waits for s/2 \
             (t/1.sql:1)\n  s/2 comes behind s/1 in its step",
        );
        check_error(
            vec![step("s:a", &["t"], THREE), step("t:b", &[], &[("1", &[]), ("2", &["s/3"])])],
            "migrations wait for each other in a circle:\n  s/1 waits for t/2, since `after` of step `s` says so\n  t/2 waits \
             for s/3 (t/2.sql:1)\n  s/3 comes behind s/1 in its step",
        );
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let waiting = |edge: &str| vec![step("s:a", &[], &[("1", &[edge])]), step("t:b", &[], THREE)];
        check_error(waiting("u/1"), "s/1.sql:1: `migrate:after u/1` names a step that the plan does not have");
        check_error(waiting("t/4"), "s/1.sql:1: `migrate:after t/4` names a migration that the step does not have");
        let later = "names a migration of the same step that does not come before it";
        check_error(waiting("s/1"), &format!("s/1.sql:1: `migrate:after s/1` {later}"));
        let names: Vec<String> = (0..20).map(|at| format!("{at:03}_x")).collect();
        let files: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), &[][..])).collect();
        let steps = vec![step("s:a", &[], &[("1", &["t/017_y"])]), step("t:b", &[], &files)];
        let help = miette::Diagnostic::help(&cut(steps).expect_err("unknown")).expect("a help").to_string();
        assert!(help.starts_with("The step has 017_x, 010_x") && help.ends_with(", and 12 more."), "{help}");
    }

    /// Steps with edges between their files; each edge is a step and a file of it.
    type Drawn = Vec<(u8, DrawnFiles)>;
    type DrawnFiles = Vec<Vec<(usize, usize)>>;

    fn plans() -> impl Strategy<Value = Drawn> {
        let file = prop::collection::vec((0..4_usize, 0..4_usize), 0..2);
        prop::collection::vec((0..2_u8, prop::collection::vec(file, 1..5)), 1..5)
    }

    fn drawn(plan: &Drawn) -> Vec<Step> {
        let made = |(at, (database, files)): (usize, &(u8, DrawnFiles))| {
            let edge = |(step, file): &(usize, usize)| {
                let to = step % plan.len();
                (to != at).then(|| format!("s{to}/{}", file % plan[to].1.len()))
            };
            let files: Vec<(String, Vec<String>)> = files
                .iter()
                .enumerate()
                .map(|(file, edges)| (file.to_string(), edges.iter().filter_map(edge).collect()))
                .collect();
            let after: Vec<Vec<&str>> = files.iter().map(|(_, it)| it.iter().map(String::as_str).collect()).collect();
            let files: Vec<(&str, &[&str])> =
                files.iter().zip(&after).map(|((name, _), after)| (name.as_str(), after.as_slice())).collect();
            step(&format!("s{at}:{}", ["a", "b"][usize::from(*database)]), &[], &files)
        };
        plan.iter().enumerate().map(made).collect()
    }

    /// Whether files can be put into an order, found by trying: each step is a queue whose first file may wait.
    fn possible(plan: &Drawn) -> bool {
        let mut done = vec![0; plan.len()];
        loop {
            let before = done.clone();
            for (at, (_, files)) in plan.iter().enumerate() {
                let over = |(step, file): &(usize, usize)| {
                    let to = step % plan.len();
                    to == at || done[to] > file % plan[to].1.len()
                };
                if files.get(done[at]).is_some_and(|edges| edges.iter().all(over)) {
                    done[at] += 1;
                }
            }
            if done == before {
                return done.iter().zip(plan).all(|(done, (_, files))| *done == files.len());
            }
        }
    }

    proptest! {
        /// Every file comes once, behind those before it in its step and those that it waits for; and there is no order
        /// only where none is possible.
        #[test]
        fn every_file_comes_behind_what_it_waits_for(plan in plans()) {
            let result = cut(drawn(&plan));
            prop_assert_eq!(result.is_ok(), possible(&plan));
            let Ok((steps, segments)) = result else { return Ok(()) };
            let mut seen: Vec<String> = Vec::new();
            for (place, segment) in segments.iter().enumerate() {
                prop_assert!(segment.behind.iter().all(|before| *before < place));
                for it in &steps[segment.step].kind.migrations()[segment.range.clone()] {
                    for edge in &it.turn.after {
                        prop_assert!(seen.contains(&edge.to_string()), "{} waits for {edge}: {seen:?}", it.path.display());
                        let owner = segments.iter().position(|other| {
                            let step = &steps[other.step];
                            step.name.as_str() == edge.step
                                && step.kind.migrations()[other.range.clone()].iter().any(|it| it.name == edge.name)
                        });
                        prop_assert!(segment.behind.contains(&owner.expect("it is in one")));
                    }
                    seen.push(format!("{}/{}", steps[segment.step].name, it.name));
                }
            }
            prop_assert_eq!(seen.len(), plan.iter().map(|(_, files)| files.len()).sum::<usize>());
            for step in &steps {
                let own = |it: &&String| it.starts_with(&format!("{}/", step.name));
                let order: Vec<&String> = seen.iter().filter(own).collect();
                prop_assert!(order.is_sorted(), "{order:?}");
            }
        }

        /// The order of the steps in the plan decides what is open, and nothing else does.
        #[test]
        fn without_edges_nothing_is_cut(databases in prop::collection::vec(0..2_u8, 0..6)) {
            let plan: Drawn = databases.iter().map(|database| (*database, vec![vec![], vec![]])).collect();
            let (steps, segments) = cut(drawn(&plan)).expect("an order");
            prop_assert_eq!(segments.iter().map(|it| it.step).collect::<Vec<_>>(), (0..steps.len()).collect::<Vec<_>>());
        }
    }
}
