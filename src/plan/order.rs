//! The order of the steps, or of what they are cut into: pure, and the same in every process.
//!
//! Every step comes after all that it waits for. Two steps on one database keep the order of the file, unless `after`
//! says the opposite. What is still open is decided by the place in the file.

use std::collections::BTreeSet;

/// A step, as far as the order is concerned.
#[derive(Debug)]
pub(super) struct Node<'a> {
    /// The database that it changes.
    pub(super) database: &'a str,
    /// The steps that it waits for, by place in the file.
    pub(super) after: Vec<usize>,
}

/// Steps of which each waits for the next, and the last for the first; it begins with the one that the file names first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cycle(pub(super) Vec<usize>);

/// The steps in order of execution, by place in the file.
pub(super) fn order(nodes: &[Node<'_>]) -> Result<Vec<usize>, Cycle> {
    let mut waits: Vec<BTreeSet<usize>> = nodes.iter().map(|node| node.after.iter().copied().collect()).collect();
    let placed = place(&waits);
    if placed.len() < nodes.len() {
        return Err(find_cycle(&waits, &placed));
    }
    keep_file_order(nodes, &mut waits, &placed);
    Ok(place(&waits))
}

/// Kahn's algorithm, always taking the first of the file; steps of a cycle, and those behind one, are left out.
fn place(waits: &[BTreeSet<usize>]) -> Vec<usize> {
    let mut open: BTreeSet<usize> = (0..waits.len()).collect();
    let mut placed = Vec::with_capacity(waits.len());
    while let Some(next) = open.iter().copied().find(|at| waits[*at].is_disjoint(&open)) {
        open.remove(&next);
        placed.push(next);
    }
    placed
}

/// Each step that could not be placed waits for another such step: following them must come back to one seen before.
fn find_cycle(waits: &[BTreeSet<usize>], placed: &[usize]) -> Cycle {
    let stuck: BTreeSet<usize> = (0..waits.len()).filter(|at| !placed.contains(at)).collect();
    let mut path: Vec<usize> = stuck.first().copied().into_iter().collect();
    loop {
        let last = *path.last().expect("a step is stuck");
        let next = *waits[last].intersection(&stuck).next().expect("a stuck step waits for a stuck step");
        if let Some(start) = path.iter().position(|at| *at == next) {
            let mut cycle = path.split_off(start);
            let first = cycle.iter().enumerate().min_by_key(|(_, step)| **step).map_or(0, |(at, _)| at);
            cycle.rotate_left(first);
            return Cycle(cycle);
        }
        path.push(next);
    }
}

fn keep_file_order(nodes: &[Node<'_>], waits: &mut [BTreeSet<usize>], placed: &[usize]) {
    let mut behind = closure(waits, placed);
    for later in 0..nodes.len() {
        for earlier in (0..later).filter(|at| nodes[*at].database == nodes[later].database) {
            if !behind[earlier][later] && !behind[later][earlier] {
                waits[later].insert(earlier);
                join(&mut behind, later, earlier);
            }
        }
    }
}

/// For each node, whether it waits for each other one, directly or through others. `placed` is every node, each after those that
/// it waits for.
fn closure(waits: &[BTreeSet<usize>], placed: &[usize]) -> Vec<Vec<bool>> {
    let mut behind = vec![vec![false; waits.len()]; waits.len()];
    for at in placed {
        for before in &waits[*at] {
            let further = behind[*before].clone();
            add(&mut behind[*at], &further);
            behind[*at][*before] = true;
        }
    }
    behind
}

/// `later` waits for `earlier` from now on, and with it whatever waits for it.
fn join(behind: &mut [Vec<bool>], later: usize, earlier: usize) {
    let mut further = behind[earlier].clone();
    further[earlier] = true;
    for (at, row) in behind.iter_mut().enumerate() {
        if at == later || row[later] {
            add(row, &further);
        }
    }
}

fn add(row: &mut [bool], further: &[bool]) {
    row.iter_mut().zip(further).for_each(|(it, other)| *it |= other);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn nodes<'a>(steps: &[(&'a str, &[usize])]) -> Vec<Node<'a>> {
        steps.iter().map(|(database, after)| Node { database, after: after.to_vec() }).collect()
    }

    #[track_caller]
    fn check(steps: &[(&str, &[usize])], expected: Result<&[usize], &[usize]>) {
        let expected = expected.map(<[usize]>::to_vec).map_err(|cycle| Cycle(cycle.to_vec()));
        assert_eq!(order(&nodes(steps)), expected);
    }

    #[test]
    fn orders_and_cycles() {
        check(&[], Ok(&[]));
        check(&[("a", &[]), ("b", &[]), ("c", &[])], Ok(&[0, 1, 2]));
        check(&[("a", &[2]), ("b", &[]), ("c", &[])], Ok(&[1, 2, 0]));
        // The second step on `a` does not overtake the first, which waits for `x`.
        check(&[("a", &[2]), ("a", &[]), ("x", &[])], Ok(&[2, 0, 1]));
        // `after` wins over the place in the file, directly and through another database.
        check(&[("a", &[1]), ("a", &[])], Ok(&[1, 0]));
        check(&[("a", &[2]), ("a", &[]), ("x", &[1])], Ok(&[1, 2, 0]));
        // A step turned round keeps its place towards the others of its database.
        check(&[("a", &[1]), ("a", &[]), ("a", &[])], Ok(&[1, 0, 2]));
        check(&[("a", &[1, 1, 1]), ("b", &[])], Ok(&[1, 0]));
        check(&[("a", &[0])], Err(&[0]));
        check(&[("a", &[1]), ("b", &[0])], Err(&[0, 1]));
        check(&[("a", &[]), ("b", &[3]), ("c", &[1]), ("d", &[2])], Err(&[1, 3, 2]));
        // A step behind the cycle is not part of it.
        check(&[("a", &[2]), ("b", &[2]), ("c", &[1])], Err(&[1, 2]));
    }

    fn graphs() -> impl Strategy<Value = Vec<(u8, Vec<usize>)>> {
        (0..12_usize).prop_flat_map(|count| {
            let after = prop::collection::vec(0..count.max(1), 0..3);
            prop::collection::vec((0..3_u8, after), count)
        })
    }

    proptest! {
        #[test]
        fn every_order_respects_after_and_every_cycle_is_one(graph in graphs()) {
            let names = ["a", "b", "c"];
            let nodes: Vec<Node<'_>> = graph
                .iter()
                .map(|(database, after)| Node { database: names[usize::from(*database)], after: after.clone() })
                .collect();
            match order(&nodes) {
                Ok(order) => {
                    prop_assert_eq!(order.iter().collect::<HashSet<_>>().len(), nodes.len());
                    let place = |step: usize| order.iter().position(|at| *at == step).expect("placed");
                    for (step, node) in nodes.iter().enumerate() {
                        for before in &node.after {
                            prop_assert!(place(*before) < place(step), "{step} waits for {before}: {order:?}");
                        }
                    }
                }
                Err(Cycle(cycle)) => {
                    prop_assert!(!cycle.is_empty());
                    for (at, step) in cycle.iter().enumerate() {
                        let next = cycle[(at + 1) % cycle.len()];
                        prop_assert!(nodes[*step].after.contains(&next), "{step} does not wait for {next}: {cycle:?}");
                    }
                    prop_assert_eq!(cycle.iter().collect::<HashSet<_>>().len(), cycle.len());
                }
            }
        }

        #[test]
        fn the_order_does_not_depend_on_how_after_is_written(graph in graphs()) {
            let build = |turn: bool| -> Vec<Node<'_>> {
                graph
                    .iter()
                    .map(|(database, after)| {
                        let mut after = after.clone();
                        if turn {
                            after.reverse();
                        }
                        Node { database: ["a", "b", "c"][usize::from(*database)], after }
                    })
                    .collect()
            };
            prop_assert_eq!(order(&build(false)), order(&build(true)));
        }

        #[test]
        fn where_after_points_backwards_every_database_keeps_the_order_of_the_file(graph in graphs()) {
            let backwards = |at: usize, after: &[usize]| after.iter().copied().filter(|it| *it < at).collect();
            let nodes: Vec<Node<'_>> = graph
                .iter()
                .enumerate()
                .map(|(at, (database, after))| {
                    Node { database: ["a", "b", "c"][usize::from(*database)], after: backwards(at, after) }
                })
                .collect();
            let order = order(&nodes).expect("no cycle without a forward edge");
            for database in ["a", "b", "c"] {
                let steps: Vec<_> = order.iter().filter(|at| nodes[**at].database == database).collect();
                prop_assert!(steps.is_sorted(), "{database}: {order:?}");
            }
        }
    }
}
