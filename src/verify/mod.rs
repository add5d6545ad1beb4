//! Is it right: the checks of a plan.

pub mod sync;
