//! Is it right: the checks of a plan.
