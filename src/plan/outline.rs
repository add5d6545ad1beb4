//! A plan file for those who need neither a target nor a database: its steps, and where their files are.

use std::path::Path;

use super::file::PlanFile;
use super::tables::Work;
use super::{PlanError, kind, project_root};
use crate::lint::Allowed;
use crate::lint::folder::{Folder, Style};
use crate::names::StepName;

/// The steps of a plan file. No variable has to be set.
#[derive(Debug, Clone)]
pub struct Outline {
    /// The steps, in the order of execution.
    pub steps: Vec<Line>,
    /// `lint.allow`.
    pub allowed: Allowed,
}

/// A step.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its name.
    pub name: StepName,
    /// The word for its kind.
    pub kind: &'static str,
    /// Its folder, if it is of a kind that has one. It is there; what is in it was not read.
    pub folder: Option<Folder>,
}

impl Outline {
    /// Reads the plan file at `path`.
    ///
    /// # Errors
    /// The first thing that is wrong with it, or a folder that does not exist.
    pub fn read(path: &Path) -> Result<Self, PlanError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| PlanError::Unreadable { path: path.to_owned(), source })?;
        let file = PlanFile::parse(path, &text)?;
        let root = project_root(path);
        let mut steps = Vec::with_capacity(file.steps.len());
        for table in &file.steps {
            let found = match &table.work {
                Work::Sql { dir } => Some((Style::Sql, dir)),
                Work::Refinery { dir } => Some((Style::Refinery, dir)),
                Work::Copy { .. } | Work::Alembic { .. } | Work::Python { .. } | Work::Command { .. } => None,
            };
            let folder = found.map(|(style, dir)| {
                let shown = dir.get_ref().into();
                file.folder(&root, table, dir).map(|dir| Folder { style, dir, shown })
            });
            let kind = kind(table, Vec::new()).word();
            steps.push(Line { name: table.name.get_ref().clone(), kind, folder: folder.transpose()? });
        }
        Ok(Self { steps, allowed: file.allowed() })
    }
}
