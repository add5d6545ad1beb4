//! Every command of the main job, as users and scripts meet it.

mod doctor;
mod parallel;
mod plan;
mod snapshot;
mod status;
mod usage;
