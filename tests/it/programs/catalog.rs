//! The comparison of catalogs that finds out a program on the wrong database.

use migrate::verify::catalog::Catalog;

use crate::fingerprint_proof::{ZOO, make_roles};
use crate::harness::execute;
use crate::world::TestWorld;

/// What a program did, and how it is named.
const CHANGES: [(&str, &str); 20] = [
    ("create table seen (id int)", "table public.seen appeared"),
    ("alter table seen add note text", "table column public.seen.note appeared"),
    ("alter table seen enable row level security", "table public.seen changed"),
    ("alter table seen alter note set default 'x'", "table column public.seen.note changed"),
    ("create index seen_id on seen (id)", "index public.seen_id appeared"),
    (
        "alter table seen add constraint positive check (id > 0) not valid",
        "table constraint positive on public.seen appeared",
    ),
    ("alter table seen validate constraint positive", "table constraint positive on public.seen changed"),
    ("create view shown as select id from seen", "view public.shown appeared"),
    ("create or replace view shown as select id + 1 as id from seen", "view public.shown changed"),
    ("create function one() returns int language sql as 'select 1'", "function public.one() appeared"),
    ("create or replace function one() returns int language sql as 'select 2'", "function public.one() changed"),
    ("create policy mine on seen using (id = 1)", "policy mine on public.seen appeared"),
    (
        "create trigger t before update on seen for each row execute function suppress_redundant_updates_trigger()",
        "trigger t on public.seen appeared",
    ),
    ("alter table seen disable trigger t", "trigger t on public.seen changed"),
    ("create type mood as enum ('good')", "type public.mood appeared"),
    ("alter type mood add value 'bad'", "type public.mood changed"),
    ("create sequence counted", "sequence public.counted appeared"),
    ("create schema further", "schema further appeared"),
    ("grant usage on schema further to public", "schema further changed"),
    ("drop policy mine on seen", "policy mine on public.seen vanished"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_named_in_a_database_that_holds_one_of_everything() {
    make_roles().await;
    let world = TestWorld::new("catalog", &["zoo"]).await;
    world.sql("zoo", ZOO).await;
    let mut session = world.connect("zoo").await;
    let mut before = Catalog::read(&mut session).await.expect("a catalog");
    for (sql, said) in CHANGES {
        execute(&mut session, sql).await;
        let after = Catalog::read(&mut session).await.expect("a catalog");
        let changes = after.changes_since(&before);
        assert!(changes.iter().any(|it| it == said), "{sql}: {changes:?}");
        before = after;
    }
    // What every application does all day is no change.
    for sql in [
        "create temp table passing (id int)",
        "insert into seen values (1)",
        "select nextval('counted')",
        "analyze seen",
    ] {
        execute(&mut session, sql).await;
        let after = Catalog::read(&mut session).await.expect("a catalog");
        assert_eq!(after.changes_since(&before), Vec::<String>::new(), "{sql}");
    }
}
