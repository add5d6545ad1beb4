//! Bad input through the command line: `bad_inputs.txt` is a corpus of it, each with what is said, word for word, and the exit code.
//! Whatever is typed, set or damaged in it, no database is changed.
//!
//! A case is a line `== what is bad`, then what makes it so, then the command after `$ `, the exit code, and standard error. To write
//! down what is said now, and then to read it as a user would: `MIGRATE_WRITE_DOWN=1 cargo test --test it bad_inputs`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use sqlx::Connection as _;

use crate::harness;
use crate::world::{Ran, TestWorld, assert_same, sql_step};

/// One case as it stands in the corpus.
#[derive(Debug)]
struct Case {
    what: String,
    before: Vec<String>,
    command: String,
    code: i32,
    said: String,
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/bad_inputs.txt")
}

fn cases(text: &str) -> Vec<Case> {
    let blocks = text.split("\n== ").skip(1);
    let case = |block: &str| {
        let mut lines = block.lines();
        let what = lines.next().expect("a title").to_owned();
        let mut before: Vec<String> =
            lines.by_ref().take_while(|it| !it.starts_with("$ ")).map(str::to_owned).collect();
        let written = block.lines().skip(before.len() + 1);
        let command = written.clone().next().expect("a command").trim_start_matches("$ ").to_owned();
        let mut rest = written.skip(1);
        let code = rest.next().and_then(|it| it.parse().ok()).unwrap_or(-1);
        let said: Vec<&str> = rest.take_while(|it| !it.starts_with("## ")).collect();
        before.retain(|it| !it.is_empty());
        Case { what, before, command, code, said: said.join("\n").trim_end().to_owned() }
    };
    blocks.map(case).collect()
}

/// What the words of the corpus stand for here.
struct Here {
    world: TestWorld,
    words: BTreeMap<String, String>,
}

impl Here {
    /// The words replaced by what they stand for.
    fn meant(&self, text: &str) -> String {
        self.words.iter().fold(text.to_owned(), |text, (word, meaning)| text.replace(word, meaning))
    }

    /// The other way around, so that it reads alike on every machine.
    fn shown(&self, text: &str) -> String {
        // The longest first: one may be a part of another.
        let mut words: Vec<_> = self.words.iter().collect();
        words.sort_by_key(|(_, meaning)| std::cmp::Reverse(meaning.len()));
        let text = words.into_iter().fold(text.to_owned(), |text, (word, meaning)| text.replace(meaning, word));
        // What went on before is not the message.
        let lines = text.lines().skip_while(|it| !it.starts_with("error: ")).map(|it| steady(it.trim_end()));
        lines.collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.world.path().join(self.meant(path))
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    fn read(&self, path: &str) -> Vec<u8> {
        let path = self.at(path);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// One line of what comes before the command.
    fn prepare(&mut self, line: &str) {
        let mut words = line.splitn(3, ' ');
        let (verb, first, rest) =
            (words.next().expect("a verb"), words.next().unwrap_or(""), words.next().unwrap_or(""));
        match verb {
            "set" => self.world.set(first, self.meant(rest)),
            "unset" => self.world.unset(first),
            "file" => self.write(first, unescaped(&self.meant(rest))),
            "append" => self.write(first, [self.read(first), unescaped(&self.meant(rest))].concat()),
            "remove" => fs::remove_file(self.at(first)).expect("it was there"),
            "folder" => fs::create_dir_all(self.at(first)).expect("a folder"),
            "link" => std::os::unix::fs::symlink(rest, self.at(first)).expect("a link"),
            "copy" => self.write(rest, self.read(first)),
            "cut" => {
                let bytes = self.read(first);
                self.write(first, &bytes[..40]);
            }
            "empty" => self.write(first, ""),
            "flip" => {
                let mut bytes = self.read(first);
                // Where gzip has its checksum: what is said of damage elsewhere depends on what it hits.
                let at = bytes.len() - 6;
                bytes[at] ^= 0x10;
                self.write(first, bytes);
            }
            "replace" => {
                let (old, new) = rest.split_once(" => ").expect("OLD => NEW");
                let text = String::from_utf8(self.read(first)).expect("text");
                let (old, new) = (self.meant(old), self.meant(new));
                assert!(text.contains(&old), "{line}: not in\n{text}");
                let new = String::from_utf8(unescaped(&new)).expect("text");
                self.write(first, text.replacen(&old, &new, 1));
            }
            "migrate" => drop(self.run(&line["migrate ".len()..])),
            _ => panic!("{line}: no such preparation"),
        }
    }

    fn run(&self, command: &str) -> Ran {
        let words: Vec<String> = command.split(' ').map(|it| self.meant(it).replace("%20", " ")).collect();
        self.world.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// Times, digests, and how many bytes were sent, are other ones in each run.
fn steady(line: &str) -> String {
    let word = |word: &str| {
        let plain = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_digest = plain.len() >= 40 && plain.chars().all(|c| c.is_ascii_hexdigit());
        let is_date = plain.len() == 10 && plain.chars().filter(|c| *c == '-').count() == 2;
        let is_time = plain.len() == 8 && plain.chars().filter(|c| *c == ':').count() == 2;
        match plain {
            _ if is_digest => word.replace(plain, "{DIGEST}"),
            _ if is_date => word.replace(plain, "{DATE}"),
            _ if is_time => word.replace(plain, "{TIME}"),
            _ => word.to_owned(),
        }
    };
    let mut words: Vec<String> = line.split(' ').map(word).collect();
    for at in 1..words.len() {
        let counted = words[at - 1].parse::<u64>().is_ok_and(|it| it > 0);
        if counted && (words[at].starts_with("bytes") || words[at..].starts_with(&["were".into(), "sent".into()])) {
            words[at - 1] = "{COUNT}".into();
        }
    }
    words.join(" ")
}

/// `\n`, `\r`, `\t`, `\\`, and a byte as `\x00`; `\X` is a thousand x.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let escape = if c == '\\' { rest.next() } else { None };
        match escape {
            Some('n') => bytes.push(b'\n'),
            Some('r') => bytes.push(b'\r'),
            Some('t') => bytes.push(b'\t'),
            Some('X') => bytes.extend([b'x'; 1000]),
            Some('x') => {
                let digits: String = rest.by_ref().take(2).collect();
                bytes.push(u8::from_str_radix(&digits, 16).expect("two hexadecimal digits"));
            }
            Some(other) => bytes.extend(other.to_string().bytes()),
            None => bytes.extend(c.to_string().bytes()),
        }
    }
    bytes
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let from = entry.expect("an entry").path();
        let to = to.join(from.file_name().expect("a name"));
        if from.is_dir() { copy_folder(&from, &to) } else { fs::copy(&from, &to).map(drop).expect("a copy") }
    }
}

/// Two databases after a release: `a` of kind `sql`, `b` of kind `refinery`, with a migration pending on each.
async fn released() -> TestWorld {
    let mut world = TestWorld::new("bad_input", &["a", "b"]).await;
    let refinery = sql_step("b").replace("kind = \"sql\"", "kind = \"refinery\"");
    world.plan(&format!("{}{refinery}", sql_step("a")));
    world.set("LANG", "C.UTF-8");
    world.file(
        "migrations/a/001_people.sql",
        "create table people (id int primary key);\n-- migrate:down\ndrop table people;\n",
    );
    world.file("migrations/b/V1__orders.sql", "create table orders (id int primary key);\n");
    world.sql("a", "create table kept (id int); insert into kept select generate_series(1, 100)").await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    world.file("migrations/a/002_more.sql", "alter table people add name text;\n");
    world.file("migrations/b/V2__more.sql", "alter table orders add name text;\n");
    let _ = world.run(&["plan", "--out", "saved.json"]).expect(0);
    world
}

/// A folder of its own with all that is in `template`, over the same databases.
fn copied(template: &TestWorld, words: &BTreeMap<String, String>) -> Here {
    let urls = ["a", "b"].map(|it| (it.to_owned(), template.url(it).to_owned()));
    let mut world = TestWorld::over(urls.into());
    copy_folder(template.path(), world.path());
    world.set("LANG", "C.UTF-8");
    let mut words = words.clone();
    words.insert("{DIR}".into(), world.path().display().to_string());
    Here { world, words }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_told_what_is_wrong_and_changes_nothing() {
    let template = released().await;
    let before = template.fingerprints().await;
    let status = template.json(0, &["status"]);
    let run = status["databases"][0]["last_run"].as_str().expect("a run").to_owned();
    let socket = harness::cluster().socket_dir().display().to_string();
    let words = BTreeMap::from([
        ("{RUN}".to_owned(), run),
        ("{SOCKET}".to_owned(), socket),
        ("{A}".to_owned(), template.dbname("a")),
        ("{B}".to_owned(), template.dbname("b")),
    ]);
    let text = fs::read_to_string(corpus()).expect("the corpus");
    let cases = cases(&text);
    let (mut different, mut accepted) = (Vec::new(), Vec::new());
    let mut written = text.split("\n== ").next().unwrap_or_default().to_owned();
    for case in &cases {
        let mut here = copied(&template, &words);
        case.before.iter().for_each(|line| here.prepare(line));
        let ran = here.run(&case.command);
        let said = here.shown(&ran.stderr);
        // 4 is for runs that are still to be rolled back: nothing was changed by what refused to.
        if ![1, 4, 5, 6, 7, 64].contains(&ran.code) {
            accepted.push(format!(
                "{}: exit code {}
{said}",
                case.what, ran.code
            ));
        }
        let before = case.before.iter().map(|it| format!("{it}\n")).collect::<String>();
        let _ = write!(written, "\n== {}\n{before}$ {}\n{}\n{said}\n", case.what, case.command, ran.code);
        if (ran.code, &said) != (case.code, &case.said) {
            different
                .push(format!("== {}\nwas to be {}\n{}\nand is {}\n{said}", case.what, case.code, case.said, ran.code));
        }
    }
    let write_down = std::env::var_os("MIGRATE_WRITE_DOWN").is_some();
    if write_down {
        fs::write(corpus(), written).expect("the corpus");
    }
    assert!(accepted.is_empty(), "{}", accepted.join("\n\n"));
    assert_same(&before, &template.fingerprints().await);
    let mut server =
        sqlx::PgConnection::connect(&harness::cluster().url("postgres", "postgres")).await.expect("a session");
    let left: Vec<String> = sqlx::query_scalar("select datname from pg_database where datname like $1")
        .bind(format!("%{}%", template.dbname("a")))
        .fetch_all(&mut server)
        .await
        .expect("an answer");
    assert_eq!(left, [template.dbname("a")], "something was left on the server");
    assert!(write_down || different.is_empty(), "{} of {}:\n{}", different.len(), cases.len(), different.join("\n\n"));
    println!("bad input: {} cases, each with its message and its exit code, and no database changed", cases.len());
    assert!(cases.len() >= 100, "{}", cases.len());
}
