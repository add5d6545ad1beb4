//! `migrate new`: a new migration file in its step's own style. The plan is read, no database is asked.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::failure::{Blame, Exit, OrFail};
use crate::kind::next::{self, New};
use crate::lint::folder::{Folder, Style};
use crate::outside::clock;
use crate::plan::outline::Outline;
use crate::sql::directives;

use super::Ended;
use super::args::NewArgs;
use super::context::Context;

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum NewError {
    #[error("the plan has no step `{name}`")]
    #[diagnostic(code("usage.step"), help("Its steps are {known}."))]
    NoStep { name: String, known: String },
    #[error("step `{name}` is of kind `{kind}`, which has no files to add to")]
    #[diagnostic(code("usage.step_kind"), help("Name a step of kind `sql` or `refinery`."))]
    Kind { name: String, kind: &'static str },
    #[error("`{0}` holds no letter and no digit")]
    #[diagnostic(code("usage.name"), help("Say in a word or two what the migration does, as in add_threads."))]
    Name(String),
    #[error("cannot read the folder {}", dir.display())]
    #[diagnostic(code("files.folder"))]
    Folder {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is there already", path.display())]
    #[diagnostic(code("new.exists"), help("Choose another name; nothing is overwritten."))]
    Exists { path: PathBuf },
    #[error("{} cannot be written", path.display())]
    #[diagnostic(code("new.write"))]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Runs it.
///
/// # Errors
/// The plan is invalid, the step is none that has files, the name says nothing, or a file is in the way.
pub fn run(context: &Context<'_>, args: &NewArgs) -> Ended {
    let outline = Outline::read(&context.plan_path()).or_blame(Blame::Usage)?;
    let folder = folder(&outline, &args.step).or_blame(Blame::Usage)?;
    let name = next::sanitised(&args.name).ok_or_else(|| NewError::Name(args.name.clone())).or_blame(Blame::Usage)?;
    let files = files(folder, &name).or_fail()?;
    let written = write(folder, &files).or_fail()?;
    if context.console.json {
        context.console.print_json(&json!({ "files": written }));
    } else {
        context.console.print(&written.iter().map(|it| format!("{}\n", it.display())).collect::<String>());
    }
    Ok(Exit::Done)
}

fn folder<'a>(outline: &'a Outline, step: &str) -> Result<&'a Folder, NewError> {
    let Some(line) = outline.steps.iter().find(|it| it.name.as_str() == step) else {
        let known = crate::failure::list(&outline.steps.iter().map(|it| it.name.as_str()).collect::<Vec<_>>());
        return Err(NewError::NoStep { name: step.to_owned(), known });
    };
    line.folder.as_ref().ok_or_else(|| NewError::Kind { name: step.to_owned(), kind: line.kind })
}

fn files(folder: &Folder, name: &str) -> Result<Vec<New>, NewError> {
    let fail = |source| NewError::Folder { dir: folder.shown.clone(), source };
    let mut paths = Vec::new();
    sql_files(&folder.dir, folder.style == Style::Refinery, &mut paths).map_err(fail)?;
    let names: Vec<String> = paths.iter().filter_map(|it| it.file_name()?.to_str()).map(str::to_owned).collect();
    Ok(match folder.style {
        Style::Refinery => vec![next::refinery(&names, name)],
        Style::Sql => {
            let now = clock::now().format("%Y%m%d%H%M%S").to_string();
            next::sql(&names, paths.iter().filter(|it| has_section(it)).count(), name, &now)
        }
    })
}

/// The `*.sql` of a folder; refinery's sub-folders count too.
fn sql_files(dir: &Path, deep: bool, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if deep && path.is_dir() {
            sql_files(&path, deep, found)?;
        } else if path.extension().is_some_and(|it| it == "sql") {
            found.push(path);
        }
    }
    Ok(())
}

/// Whether a file holds its own way back. One that cannot be read has no say in the style.
fn has_section(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| directives::read(&text).is_ok_and(|parts| parts.down.is_some()))
}

/// Writes all of the files or none, and says where.
fn write(folder: &Folder, files: &[New]) -> Result<Vec<PathBuf>, NewError> {
    if let Some(there) = files.iter().map(|it| &it.name).find(|it| folder.dir.join(it).exists()) {
        return Err(NewError::Exists { path: folder.shown.join(there) });
    }
    let mut written = Vec::new();
    for it in files {
        let shown = folder.shown.join(&it.name);
        let opened = OpenOptions::new().write(true).create_new(true).open(folder.dir.join(&it.name));
        let result = opened.and_then(|mut file| file.write_all(it.text.as_bytes()));
        match result {
            Ok(()) => written.push(shown),
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                return Err(NewError::Exists { path: shown });
            }
            Err(source) => return Err(NewError::Write { path: shown, source }),
        }
    }
    Ok(written)
}
