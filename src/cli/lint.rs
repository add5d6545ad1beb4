//! `migrate lint`: what is dangerous in migrations, for people, for scripts, and for code hosts (SARIF).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::event::Event;
use crate::failure::{Blame, Exit, Failure, OrFail};
use crate::lint::folder::{Folder, Looked, Style, look};
use crate::lint::rules::RULES;
use crate::lint::{Allowed, Finding, Severity};
use crate::names::TargetName;
use crate::plan::outline::Outline;
use crate::run::survey::edited;

use super::args::{LintArgs, LintFormat};
use super::context::Context;
use super::text::plural;
use super::{Ended, trouble};

/// How long ledgers are waited for that nobody asked to be looked at.
const WAITED: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{} is not a migration file", path.display())]
#[diagnostic(
    code("lint.file"),
    help("Name a file that is there and is called NNN_name.sql, or V1__name.sql for refinery.")
)]
struct NoMigration {
    path: PathBuf,
}

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("--json and --format {0} are two formats")]
#[diagnostic(code("usage.format"), help("Give one of them."))]
struct TwoFormats(&'static str);

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("the databases did not answer within {0} s")]
#[diagnostic(code("lint.no_answer"))]
struct NoAnswer(u64);

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{what}")]
#[diagnostic(
    code("lint.found"),
    help("Correct the files; or allow a finding by name, in the file with `-- migrate:allow RULE`, or in the plan.")
)]
struct Found {
    what: String,
}

/// Runs it.
///
/// # Errors
/// The plan is invalid, or a file is none. Findings are told here.
pub async fn run(context: &Context<'_>, args: &LintArgs) -> Ended {
    let format = format(context, args)?;
    let (looked, compared_with) = match args.files.is_empty() {
        true => of_plan(context, args.target_named).await?,
        false => (of_files(context, &args.files)?, None),
    };
    let failure = failure(&looked.findings, args.strict);
    match format {
        LintFormat::Text => context.console.print(&text(&looked)),
        LintFormat::Sarif => context.console.print_json(&sarif(&looked.findings)),
        LintFormat::Json => {
            let mut document = json!({ "findings": looked.findings, "compared_with": compared_with });
            trouble::add(&mut document, failure.as_ref());
            context.console.print_json(&document);
        }
    }
    let Some(failure) = failure else { return Ok(Exit::Done) };
    context.console.say(&trouble::text(context.console, &failure));
    Ok(failure.exit())
}

fn format(context: &Context<'_>, args: &LintArgs) -> Result<LintFormat, Failure> {
    match (context.console.json, args.format) {
        (true, Some(LintFormat::Text)) => Err(Failure::untouched(Blame::Usage, TwoFormats("text"))),
        (true, Some(LintFormat::Sarif)) => Err(Failure::untouched(Blame::Usage, TwoFormats("sarif"))),
        (true, _) => Ok(LintFormat::Json),
        (false, format) => Ok(format.unwrap_or(LintFormat::Text)),
    }
}

/// Every file of every step; and with which target's ledgers the files were compared. Those of a target that nobody named are
/// asked if that can be done at once.
async fn of_plan(context: &Context<'_>, target_named: bool) -> Result<(Looked, Option<TargetName>), Failure> {
    let mut looked = by_text(context)?;
    match compare(context, &mut looked.findings, target_named).await {
        Ok(target) => Ok((looked, Some(target))),
        // A file that was not understood keeps the plan from being loaded, and fails lint anyway: it is told with the rest.
        Err(failure) if target_named && looked.findings.iter().all(|it| it.was_understood()) => Err(failure),
        Err(failure) => {
            let why = failure.error.to_string();
            let why = why.lines().next().unwrap_or_default();
            context.world.tell(Event::Noted(format!("not compared with what was applied: {why}")));
            Ok((looked, None))
        }
    }
}

fn by_text(context: &Context<'_>) -> Result<Looked, Failure> {
    let outline = Outline::read(&context.plan_path()).or_blame(Blame::Usage)?;
    let mut seen = BTreeSet::new();
    // Two steps may bring one folder to two databases.
    let folders = outline.steps.iter().filter_map(|it| it.folder.as_ref()).filter(|it| seen.insert(*it));
    Ok(together(folders.map(|folder| look(folder, None, &outline.allowed))))
}

/// Adds the files that were edited after they were applied, by the ledgers of the target, which is given.
async fn compare(
    context: &Context<'_>,
    findings: &mut Vec<Finding>,
    target_named: bool,
) -> Result<TargetName, Failure> {
    let plan = context.plan()?;
    let edited = edited(&plan);
    findings.extend(match target_named {
        true => edited.await?,
        false => tokio::time::timeout(WAITED, edited).await.map_err(|_| NoAnswer(WAITED.as_secs())).or_fail()??,
    });
    // Files stay in their order, and each has its findings together.
    let mut order: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for (at, it) in findings.iter().enumerate() {
        order.entry(it.file.clone()).or_insert(at);
    }
    findings.sort_by_key(|it| (order[&it.file], it.line, it.column));
    Ok(plan.target.name)
}

/// These files alone. A plan is not needed; where there is one, what it allows is allowed.
fn of_files(context: &Context<'_>, files: &[PathBuf]) -> Result<Looked, Failure> {
    let plan = context.plan_path();
    let allowed = match context.global.plan.is_some() || plan.is_file() {
        true => Outline::read(&plan).or_blame(Blame::Usage)?.allowed,
        false => Allowed::new(),
    };
    let mut folders: BTreeMap<Folder, Vec<PathBuf>> = BTreeMap::new();
    for path in files {
        let style = path.is_file().then(|| style(path)).flatten();
        let style = style.ok_or_else(|| NoMigration { path: path.clone() }).or_blame(Blame::Usage)?;
        let (shown, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        let dir = if shown.as_os_str().is_empty() { Path::new(".") } else { shown };
        let folder = Folder { style, dir: dir.to_owned(), shown: shown.to_owned() };
        folders.entry(folder).or_default().push(shown.join(name));
    }
    Ok(together(folders.iter().map(|(folder, files)| look(folder, Some(files), &allowed))))
}

/// Whose file it is, by its name.
fn style(path: &Path) -> Option<Style> {
    let name = path.file_name()?.to_str()?;
    let sql = path.extension().is_some_and(|it| it.eq_ignore_ascii_case("sql"));
    let of_refinery = |name: &str| name.starts_with(|c: char| c.is_ascii_digit()) && name.contains("__");
    match name.strip_prefix(['V', 'U']) {
        _ if !sql => None,
        Some(rest) if of_refinery(rest) => Some(Style::Refinery),
        _ => Some(Style::Sql),
    }
}

fn together(parts: impl Iterator<Item = Looked>) -> Looked {
    parts.fold(Looked::default(), |mut all, part| {
        all.files += part.files;
        all.findings.extend(part.findings);
        all
    })
}

fn count(findings: &[Finding], severity: Severity) -> usize {
    findings.iter().filter(|it| it.severity == severity).count()
}

fn failure(findings: &[Finding], strict: bool) -> Option<Failure> {
    let (errors, warnings) = (count(findings, Severity::Error), count(findings, Severity::Warning));
    let what = match (errors, warnings) {
        (0, 0) => return None,
        (0, _) if !strict => return None,
        (0, _) => plural(warnings, "warning"),
        (_, 0) => plural(errors, "error"),
        (_, _) => format!("{} and {}", plural(errors, "error"), plural(warnings, "warning")),
    };
    Some(Failure::untouched(Blame::Check, Found { what: format!("lint found {what}") }))
}

fn text(looked: &Looked) -> String {
    let mut text = String::new();
    for it in &looked.findings {
        let (file, severity) = (it.file.display(), it.severity.word());
        text += &format!("{file}:{}:{}: {severity}[{}]: {}\n", it.line, it.column, it.rule, it.message);
        text += &format!("  help: {}\n", it.help);
    }
    let (errors, warnings) = (count(&looked.findings, Severity::Error), count(&looked.findings, Severity::Warning));
    let (errors, warnings) = (plural(errors, "error"), plural(warnings, "warning"));
    text + &format!("{}: {errors}, {warnings}\n", plural(looked.files, "file"))
}

/// SARIF 2.1.0.
fn sarif(findings: &[Finding]) -> Value {
    let rules: Vec<Value> = RULES
        .iter()
        .map(|it| {
            json!({
                "id": it.name,
                "shortDescription": { "text": it.about },
                "help": { "text": it.help },
                "defaultConfiguration": { "level": it.severity.word() },
            })
        })
        .collect();
    let result = |it: &Finding| {
        json!({
            "ruleId": it.rule,
            "ruleIndex": RULES.iter().position(|rule| rule.name == it.rule),
            "level": it.severity.word(),
            "message": { "text": format!("{}. {}", it.message, it.help) },
            "locations": [{ "physicalLocation": {
                "artifactLocation": { "uri": uri(&it.file) },
                "region": { "startLine": it.line, "startColumn": it.column },
            }}],
        })
    };
    let driver = json!({ "name": "migrate", "version": env!("CARGO_PKG_VERSION"), "rules": rules });
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": driver },
            "columnKind": "unicodeCodePoints",
            "results": findings.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

/// A relative path as a relative URI, an absolute one as `file://`.
fn uri(path: &Path) -> String {
    let encoded: String = path
        .to_string_lossy()
        .bytes()
        .map(|byte| match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    if path.is_absolute() { format!("file://{encoded}") } else { encoded }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(rule: &'static str, severity: Severity) -> Finding {
        let (file, message, help) = ("m/1 ü.sql".into(), "it is so".into(), "Do otherwise.".into());
        Finding { rule, severity, file, line: 3, column: 5, message, help }
    }

    #[test]
    fn text_has_file_line_column_severity_and_rule() {
        let findings = vec![finding("truncate", Severity::Error), finding("no-way-back", Severity::Warning)];
        let expected = "m/1 ü.sql:3:5: error[truncate]: it is so\n  help: Do otherwise.\n\
                        m/1 ü.sql:3:5: warning[no-way-back]: it is so\n  help: Do otherwise.\n\
                        4 files: 1 error, 1 warning\n";
        assert_eq!(text(&Looked { files: 4, findings }), expected);
    }

    #[test]
    fn warnings_fail_only_where_that_is_wanted() {
        let (error, warning) = (finding("truncate", Severity::Error), finding("no-way-back", Severity::Warning));
        let exit = |findings: &[Finding], strict| failure(findings, strict).map(|it| it.exit());
        assert_eq!(exit(&[], true), None);
        assert_eq!(exit(std::slice::from_ref(&warning), false), None);
        assert_eq!(exit(std::slice::from_ref(&warning), true), Some(Exit::CheckFailed));
        assert_eq!(exit(&[warning, error], false), Some(Exit::CheckFailed));
    }

    /// What the schema of SARIF 2.1.0 demands of the parts that are used here.
    #[test]
    fn sarif_has_the_form_of_its_schema() {
        let document = sarif(&[finding("truncate", Severity::Error), finding("no-way-back", Severity::Warning)]);
        assert_eq!(document["version"], "2.1.0");
        let runs = document["runs"].as_array().unwrap();
        let [run] = runs.as_slice() else { panic!("{runs:?}") };
        assert_eq!(run["columnKind"], "unicodeCodePoints");
        let driver = &run["tool"]["driver"];
        assert!(driver["name"].is_string());
        let rules = driver["rules"].as_array().unwrap();
        for rule in rules {
            assert!(rule["id"].is_string() && rule["shortDescription"]["text"].is_string());
            assert!(rule["help"]["text"].is_string());
            assert!(["error", "warning"].contains(&rule["defaultConfiguration"]["level"].as_str().unwrap()));
        }
        let results = run["results"].as_array().unwrap();
        assert_eq!(results.len(), 2);
        for result in results {
            assert!(result["message"]["text"].as_str().is_some_and(|it| it.ends_with('.')));
            let rule = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[rule]["id"], result["ruleId"]);
            let place = &result["locations"][0]["physicalLocation"];
            assert_eq!(place["artifactLocation"]["uri"], "m/1%20%C3%BC.sql");
            assert_eq!(place["region"], json!({ "startLine": 3, "startColumn": 5 }));
        }
        assert_eq!(uri(Path::new("/a b/1.sql")), "file:///a%20b/1.sql");
    }

    #[test]
    fn a_file_is_known_by_its_name() {
        let of = |name: &str| style(Path::new(name));
        assert_eq!(of("m/001_a.sql"), Some(Style::Sql));
        assert_eq!(of("m/V1__a.sql"), Some(Style::Refinery));
        assert_eq!(of("View.sql"), Some(Style::Sql));
        assert_eq!(of("m/README.md"), None);
    }
}
