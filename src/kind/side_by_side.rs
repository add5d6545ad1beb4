//! The same work on many things, on as many threads as there are processors.

use std::thread;

/// Fewer things than this are not worth a second thread.
pub(crate) const FEW: usize = 64;

/// `work` on each of `items`, in their order.
pub(crate) fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(items.len() / FEW + 1);
    let work = &work;
    thread::scope(|scope| {
        let parts = items.chunks(items.len().div_ceil(threads).max(1));
        let running: Vec<_> =
            parts.map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<_>>())).collect();
        let ended = running.into_iter().map(|it| it.join());
        ended.flat_map(|it| it.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_things_keeps_its_order() {
        for count in [0, 1, FEW - 1, FEW, 10 * FEW + 3] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(side_by_side(&items, |it| it * 2), items.iter().map(|it| it * 2).collect::<Vec<_>>());
        }
    }
}
