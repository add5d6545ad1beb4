//! How much memory `migrate` takes for a database of a gigabyte.
#![expect(clippy::print_stdout, reason = "the figures are worth seeing")]

use std::fs;
use std::time::{Duration, Instant};

use crate::rollback::release;
use crate::world::{Ran, TestWorld};

/// What `migrate` may take at its peak, whatever the size of the databases: with two jobs, far below the budget of a plan that names none.
const LIMIT_KIB: u64 = 128 * 1024;

/// Text, JSON and numbers, each row in the page and not beside it. The rows repeat too far apart for gzip to notice.
const GIGABYTE: &str = "
    create table seed as
        select (select string_agg(md5(random()::text || n || m), '') from generate_series(1, 25) m) body,
               jsonb_build_object('id', n, 'tags', jsonb_build_array(md5(n::text), 'b'), 'at', random()) doc,
               (select array_agg(random() * n * m) from generate_series(1, 64) m) numbers
        from generate_series(1, 1000) n;
    create table big (id bigint, body text, doc jsonb, numbers float8[]);
    insert into big select n, body || n, doc, numbers
        from generate_series(1, 700) n, seed;
    drop table seed;";

/// Runs to the end. Gives the peak of the process's memory, in KiB.
async fn peak(world: &TestWorld, args: &[&str]) -> u64 {
    let (begun, mut child) = (Instant::now(), world.start(args));
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().expect("our child").is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let now = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(now.unwrap_or(0));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ran: Ran = child.wait_with_output().expect("our child").into();
    ran.expect(0);
    println!("{}: {:.1} MiB at most, {:.1} s", args[0], peak as f64 / 1024.0, begun.elapsed().as_secs_f64());
    peak
}

/// A row that is larger than the limit passes in pieces.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_300_megabytes() {
    let world = release("memory_row", &["rag"]).await;
    let row = "create table big (id int, body text); alter table big alter body set storage external;
        insert into big select 1, string_agg(md5(n::text), '') from generate_series(1, 9830400) n; insert into big values (2, 'small')";
    world.sql("rag", row).await;
    world.sql("rag", "vacuum analyze big").await;
    let copy = format!("{}_copy", world.dbname("rag"));
    for args in [&["snapshot", "take"][..], &["snapshot", "restore", "--only", "rag", "--as", &copy]] {
        let peak = peak(&world, args).await;
        assert!(peak > 0 && peak < LIMIT_KIB, "{args:?} took {peak} KiB");
    }
    let parts = world.objects().into_iter().filter(|key| key.contains("2-data-01")).count();
    assert_eq!(parts, 1, "the table has an archive of its own");
    let ask = "select md5(string_agg(body, ',' order by id)) from big";
    let mut there = crate::harness::connect(&world.url("rag").replace(&world.dbname("rag"), &copy)).await;
    let found: String = sqlx::query_scalar(ask).fetch_one(&mut there).await.expect("a row");
    assert_eq!(found, world.value("rag", "select md5(string_agg(body, ',' order by id)) from big").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_there_and_back() {
    let world = release("memory", &["rag"]).await;
    let begun = Instant::now();
    world.sql("rag", GIGABYTE).await;
    let size: u64 = world.value("rag", "pg_database_size(current_database())").await.parse().expect("a number");
    println!("a database of {} MiB, made in {:.1} s", size >> 20, begun.elapsed().as_secs_f64());
    assert!(size >= 1 << 30, "{size}");

    // A folder takes a little more than a bucket.
    for args in [["apply", "--yes"], ["rollback", "--yes"]] {
        let peak = peak(&world, &args).await;
        assert!(peak > 0 && peak < LIMIT_KIB, "{} took {peak} KiB", args[0]);
    }
    assert_eq!(world.value("rag", "select count(*) from big").await, "700000");
}
