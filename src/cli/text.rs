//! Numbers and tables as people read them.

/// `1.2 GiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// `1,234,567`.
#[must_use]
pub fn count(count: u64) -> String {
    indicatif::HumanCount(count).to_string()
}

/// `34 ms`, `0.42 s`, `4.2 s`, `12 min 04 s`.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.1 => format!("{:.0} ms", s * 1000.0),
        s if s < 1.0 => format!("{s:.2} s"),
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{:.0} min {:02.0} s", (s / 60.0).floor(), s % 60.0),
        s => format!("{:.0} h {:02.0} min", (s / 3600.0).floor(), (s % 3600.0) / 60.0),
    }
}

/// `1 migration`, `2 migrations`.
#[must_use]
pub fn plural(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// Rows under a heading, columns two spaces apart, nothing after the last one.
#[must_use]
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let lines: Vec<Vec<String>> =
        std::iter::once(heading.iter().map(ToString::to_string).collect()).chain(rows.iter().cloned()).collect();
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|it| it.chars().count()).max();
    let widths: Vec<usize> = (0..heading.len()).map(|column| width(column).unwrap_or(0)).collect();
    lines.iter().map(|line| row(line, &widths) + "\n").collect()
}

fn row(cells: &[String], widths: &[usize]) -> String {
    let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
    padded.join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        assert_eq!(seconds(0.034), "34 ms");
        assert_eq!(seconds(0.34), "0.34 s");
        assert_eq!(seconds(42.35), "42.4 s");
        assert_eq!(seconds(724.0), "12 min 04 s");
        assert_eq!(seconds(7384.0), "2 h 03 min");
    }

    #[test]
    fn tables_are_aligned() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["höh".into(), "22".into()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME  N\na     1\nhöh   22\n");
    }
}
