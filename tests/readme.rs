//! README.md and docs/ against the program: what can be checked without a server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use migrate::plan::{Plan, PlanError};

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents, each with its name.
fn documents() -> Vec<(&'static str, String)> {
    let names = ["README.md", "docs/ARCHITECTURE.md", "docs/CONTRIBUTING.md", "docs/restore-by-hand.md"];
    names.into_iter().map(|name| (name, text(name))).collect()
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_migrate")).args(arguments).arg("--help").env_clear().output();
    let output = output.expect("the binary was built");
    assert!(output.status.success(), "{arguments:?} --help failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

/// The names in the `Commands:` section of a help text.
fn commands(help: &str) -> BTreeSet<String> {
    let section = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = section.take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// The blocks that start with three backquotes and `language`.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    text.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// Every `migrate …` that a document shows: after a prompt in a block, or between backquotes.
fn typed(text: &str) -> Vec<String> {
    let prompts = text.lines().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned);
    let inline = text.split('`').skip(1).step_by(2).map(|it| it.split_whitespace().collect::<Vec<_>>().join(" "));
    prompts.chain(inline).filter_map(|it| it.strip_prefix("migrate ").map(str::to_owned)).collect()
}

#[test]
fn the_exit_codes_are_those_of_the_help() {
    let help = help(&[]);
    let of_help: BTreeMap<u8, String> = help
        .lines()
        .skip_while(|line| !line.starts_with("Exit codes:"))
        .filter_map(|line| line.trim().split_once("  "))
        .filter_map(|(code, meaning)| Some((code.parse().ok()?, meaning.trim().to_owned())))
        .collect();
    let of_readme: BTreeMap<u8, String> = text("README.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "))
        .filter_map(|(code, meaning)| Some((code.trim().parse().ok()?, meaning.trim().to_owned())))
        .collect();
    assert_eq!(of_help.len(), 10, "{of_help:?}");
    assert_eq!(of_readme, of_help);
}

#[test]
fn every_command_and_flag_that_is_shown_exists() {
    let top = commands(&help(&[]));
    for (document, text) in documents() {
        for line in typed(&text) {
            // `migrate COMMAND`, in the words of the documents, stands for any.
            let words: Vec<&str> =
                line.split_whitespace().take_while(|it| !["2>&1", "|", ">", "<", "#"].contains(it)).collect();
            let Some(first) = words.first().filter(|it| it.starts_with(|c: char| c.is_ascii_lowercase())) else {
                continue;
            };
            assert!(top.contains(*first), "{document}: `migrate {line}`: there is no such command");
            let mut path = vec![*first];
            let below = commands(&help(&path));
            if let Some(second) = words.get(1).filter(|it| !below.is_empty() && !it.starts_with('-')) {
                assert!(below.contains(*second), "{document}: `migrate {line}`: there is no such command");
                path.push(second);
            }
            let help = help(&path);
            for flag in words.iter().filter(|it| it.starts_with("--")) {
                let flag = flag.split('=').next().unwrap_or(flag);
                assert!(help.contains(flag), "{document}: `migrate {line}`: {path:?} has no {flag}");
            }
        }
    }
    let readme = text("README.md");
    for command in top.iter().filter(|it| *it != "help") {
        assert!(readme.contains(&format!("`migrate {command}")), "README.md must speak of `migrate {command}`");
    }
}

/// README's plan, loaded as `apply` would.
fn load(plan: &str) -> Result<Plan, PlanError> {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("plans")).expect("a folder");
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    std::os::unix::fs::symlink(migrations, folder.path().join("migrations")).expect("a link");
    for file in
        ["rag/app/migrations/add_publish_tables.py", "rag/app/migrations/add_facts.py", "backend/x", "dbt/models/x"]
    {
        let file = folder.path().join(file);
        fs::create_dir_all(file.parent().expect("a file is in a folder")).expect("a folder");
        fs::write(file, "").expect("a file");
    }
    let path = folder.path().join("plans/readme.toml");
    fs::write(&path, plan).expect("a file");
    let env = [
        ("MIGRATE_STORE", "file:///tmp/store"),
        ("RAG_URL", "postgresql://release@db.example.org/mobius_rag"),
        ("CHAT_URL", "postgresql+asyncpg://release@db.example.org/mobius_chat"),
    ];
    let env = env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Plan::load(&path, None, &env)
}

#[test]
fn the_plan_in_the_readme_is_a_plan() {
    let plans = blocks(&text("README.md"), "toml");
    let [programs, plan] = plans.as_slice() else {
        panic!("README.md has one plan, and steps for it that run programs")
    };
    let plan = load(&format!("{plan}\n{programs}")).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!((plan.steps.len(), plan.checks.len(), plan.databases.len()), (6, 1, 2));
}

#[test]
fn what_is_not_built_yet_is_refused_by_name() {
    let readme = text("README.md");
    let plan = blocks(&readme, "toml").remove(1);
    let checks = ["sql", "http", "command", "git"].map(|it| ("kind = \"sync\"".to_owned(), format!("kind = \"{it}\"")));
    let rest = [("freeze = \"none\"", "freeze = \"read_only\""), ("standby = false", "standby = true")];
    let rest = rest.map(|(from, to)| (from.to_owned(), to.to_owned()));
    for (built, unbuilt) in checks.into_iter().chain(rest) {
        assert!(plan.contains(&built), "the plan in README.md must have `{built}`");
        let error = load(&plan.replace(&built, &unbuilt)).err().unwrap_or_else(|| panic!("{unbuilt} is accepted"));
        let message = error.to_string();
        assert!(message.contains("not supported"), "{unbuilt}: {message}");
        let section = readme.split("## Not built yet").nth(1).expect("README.md says what is not built yet");
        let (key, value) = unbuilt.split_once(" = ").expect("a key and a value");
        let word = value.trim_matches('"').split("://").next().unwrap_or(value);
        let said = if key == "url" || key == "kind" { word } else { &unbuilt };
        assert!(section.contains(&format!("`{said}")), "README.md must say that `{said}` is not built yet");
    }
}

#[test]
fn every_variable_of_ours_is_in_the_readme() {
    let readme = text("README.md");
    let sources = ["src/cli/args.rs", "src/outside/process.rs", "src/world.rs"].map(text).concat();
    let words = sources.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
    let ours: BTreeSet<&str> = words.filter(|it| it.starts_with("MIGRATE_")).collect();
    assert!(ours.len() >= 3, "{ours:?}");
    for name in ours {
        assert!(readme.contains(&format!("| `{name}` |")), "README.md must say what {name} does");
    }
}

#[test]
fn the_rules_of_lint_are_those_of_the_program() {
    let readme = text("README.md");
    let section = readme.split("\n## Linting\n").nth(1).and_then(|it| it.split("\n## ").next());
    let table = section.expect("README.md has a section on linting").lines().filter(|line| line.starts_with("| `"));
    let rows: Vec<&str> = table.collect();
    let row = |it: &migrate::lint::rules::Rule| format!("| `{}` | {} | {} |", it.name, it.severity.word(), it.about);
    assert_eq!(rows, migrate::lint::rules::RULES.iter().map(row).collect::<Vec<_>>());
}

#[test]
fn the_migrations_of_this_repository_have_no_errors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lint = |plan: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migrate"));
        let output = command.args(["lint", "--plan"]).arg(plan).env_clear().output().expect("the binary was built");
        (output.status.code(), String::from_utf8(output.stdout).expect("findings are UTF-8"))
    };
    let (code, found) = lint(&root.join("plans/production.toml"));
    assert!(code == Some(0) && found.contains(" 0 errors"), "{code:?} {found}");
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (document, text) in documents() {
        let folder = root.join(document).parent().expect("a file is in a folder").to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(folder.join(file).exists(), "{document}: there is no {file}");
        }
    }
}

#[test]
fn the_containers_are_what_the_local_target_needs() {
    let (plan, compose) = (text("plans/production.toml"), text("docker-compose.yml"));
    let variables: BTreeSet<&str> = plan.split("${").skip(1).filter_map(|rest| rest.split('}').next()).collect();
    let local: Vec<&&str> = variables.iter().filter(|it| it.starts_with("LOCAL_") || **it == "MIGRATE_STORE").collect();
    assert_eq!(local.len(), 5, "{variables:?}");
    for name in local {
        assert!(compose.contains(&format!("export {name}=")), "docker-compose.yml must say what {name} is");
    }
}
