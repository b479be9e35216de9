//! What a machine has said of its tests.

use std::collections::BTreeMap;

/// What begins each line that is meant for the host.
const MARK: &str = "kplb-vm: ";

/// One line of a machine to its host.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// The kernel's own name.
    Kernel(String),
    /// A test has ended.
    Test {
        /// Its group.
        group: String,
        /// Its own name.
        name: String,
        /// Whether it has passed.
        outcome: Outcome,
        /// How long it took, in seconds of the machine's own clock.
        seconds: f64,
    },
    /// All have ended.
    End,
}

/// How a test has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Well.
    Passed,
    /// Not well.
    Failed,
}

impl Said {
    /// What a line of the console says; nothing if it is not meant for the host.
    pub fn parse(line: &str) -> Option<Self> {
        let (_, said) = line.split_once(MARK)?;
        let mut words = said.split_whitespace();
        let said = match words.next()? {
            "kernel" => Self::Kernel(words.next()?.to_owned()),
            "test" => {
                let outcome = match words.next()? {
                    "passed" => Outcome::Passed,
                    _ => Outcome::Failed,
                };
                let (start, end): (f64, f64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                let (group, name) = (words.next()?.to_owned(), words.next()?.to_owned());
                Self::Test { group, name, outcome, seconds: end - start }
            }
            "end" => Self::End,
            _ => return None,
        };
        Some(said)
    }
}

/// How the tests of a group have ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Count {
    /// How many have passed.
    pub n_passed: usize,
    /// The names of the others.
    pub failed: Vec<String>,
    /// How long all took, in seconds of the machine's own clock.
    pub seconds: f64,
}

/// What is known of one kernel, by group of tests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Result {
    /// The kernel's own name.
    pub release: String,
    /// Each group of which at least one test has ended.
    pub groups: BTreeMap<String, Count>,
    /// Whether all tests have ended.
    pub is_complete: bool,
}

impl Result {
    /// Counts it in.
    pub fn add(&mut self, said: Said) {
        match said {
            Said::Kernel(release) => self.release = release,
            Said::Test { group, name, outcome, seconds } => {
                let count = self.groups.entry(group).or_default();
                count.seconds += seconds;
                match outcome {
                    Outcome::Passed => count.n_passed += 1,
                    Outcome::Failed => count.failed.push(name),
                }
            }
            Said::End => self.is_complete = true,
        }
    }

    /// What is wrong, if anything is; `groups` are those that were asked for.
    pub fn complaints(&self, groups: &[&str]) -> Vec<String> {
        let failed = |(group, count): (&String, &Count)| {
            count.failed.iter().map(|name| format!("{group} {name} has failed")).collect::<Vec<_>>()
        };
        let mut complaints: Vec<_> = self.groups.iter().flat_map(failed).collect();
        for group in groups {
            if !self.groups.contains_key(*group) {
                complaints.push(format!("no test of {group} has run"));
            }
        }
        if !self.is_complete {
            complaints.push("it ended before its tests".to_owned());
        }
        complaints
    }
}

/// A table in Markdown: a line for each group, a column for each kernel.
pub fn table(groups: &[&str], results: &[(String, Result)]) -> String {
    let row = |first: &str, cell: &dyn Fn(&Result) -> String| {
        let cells = results.iter().map(|(_, result)| format!(" {} |", cell(result))).collect::<String>();
        format!("| {first} |{cells}\n")
    };
    let mut table = format!("| |{}\n", results.iter().map(|(name, _)| format!(" {name} |")).collect::<String>());
    table.push_str(&format!("| --- |{}\n", " --- |".repeat(results.len())));
    table.push_str(&row("kernel", &|result| result.release.clone()));
    for group in groups {
        table.push_str(&row(group, &|result| {
            let Some(count) = result.groups.get(*group) else { return "-".to_owned() };
            let all = count.n_passed + count.failed.len();
            format!("{} of {all}, {:.0} s", count.n_passed, count.seconds)
        }));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_meant_for_the_host_are_understood() {
        assert_eq!(Said::parse("[ 1.0] random: ready"), None);
        assert_eq!(Said::parse("kplb-vm: kernel 6.1.0-56-amd64"), Some(Said::Kernel("6.1.0-56-amd64".to_owned())));
        assert_eq!(Said::parse("\u{1b}ckplb-vm: end"), Some(Said::End));
        assert_eq!(
            Said::parse("kplb-vm: test failed 1.25 3.75 e2e a::b"),
            Some(Said::Test {
                group: "e2e".to_owned(),
                name: "a::b".to_owned(),
                outcome: Outcome::Failed,
                seconds: 2.5
            })
        );
        assert_eq!(Said::parse("kplb-vm: test failed soon"), None);
    }

    fn said(lines: &[&str]) -> Result {
        let mut result = Result::default();
        lines.iter().filter_map(|line| Said::parse(line)).for_each(|said| result.add(said));
        result
    }

    #[test]
    fn whatever_did_not_pass_is_complained_of() {
        let lines = ["kplb-vm: test passed 0 1 abi a", "kplb-vm: test failed 1 2 abi b"];
        let complaints = said(&lines).complaints(&["abi", "e2e"]);
        assert_eq!(complaints, ["abi b has failed", "no test of e2e has run", "it ended before its tests"]);
        assert!(said(&[lines[0], "kplb-vm: end"]).complaints(&["abi"]).is_empty());
    }

    #[test]
    fn a_table_has_a_column_for_each_kernel() {
        let one = said(&["kplb-vm: kernel 6.1.0", "kplb-vm: test passed 0 1 abi a", "kplb-vm: test failed 1 4 abi b"]);
        let results = [("old".to_owned(), one), ("new".to_owned(), Result::default())];
        assert_eq!(
            table(&["abi"], &results),
            "| | old | new |\n| --- | --- | --- |\n| kernel | 6.1.0 |  |\n| abi | 1 of 2, 4 s | - |\n"
        );
    }
}
