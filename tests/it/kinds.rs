//! The kinds of step in a release, typed as a user types them: `sql`, `refinery`, `copy`.

mod concurrently;
mod copy;
mod limits;
mod refinery;
mod repeatable;
mod session;
mod sql;
mod stdin;
