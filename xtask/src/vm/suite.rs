//! Which tests are run in emulated machines.
//!
//! Those of the data path and from end to end: what a kernel or a processor can make a difference to.

use anyhow::{Result, bail};

/// Tests that are counted together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Group<'a> {
    /// What it is called, in one word.
    pub name: &'static str,
    /// The program: one of those in `tests/tests`.
    pub program: &'static str,
    /// Part of the names of its tests; all of them, if it is empty.
    pub part: &'a str,
    /// The mode of the agents in it, for tests that do not choose one; their usual one, if it is empty.
    pub mode: &'static str,
    /// What `tc` is told of the lab's cables: arguments of `netem`. Nothing, if it is empty.
    pub cables: &'static str,
    /// When it is run.
    pub extent: Extent,
}

/// How many tests are run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extent {
    /// What takes minutes.
    Short,
    /// All.
    Full,
}

/// Cables as no cluster should have them.
const BAD_CABLES: &str = "delay 2ms 1ms reorder 25% loss 1% duplicate 1%";

/// All tests of a program.
const fn whole(program: &'static str, extent: Extent) -> Group<'static> {
    Group { name: program, program, part: "", mode: "", cables: "", extent }
}

/// Not the transfers of a hundred megabytes from end to end, which take minutes in each mode.
const ALL: [Group<'_>; 19] = [
    whole("abi", Extent::Short),
    whole("vlan", Extent::Short),
    Group { name: "serves", part: "serves_all", ..whole("e2e", Extent::Short) },
    Group { name: "serves-tc", part: "serves_all", mode: "tc", ..whole("e2e", Extent::Short) },
    Group { name: "serves-generic", part: "serves_all", mode: "generic", ..whole("e2e", Extent::Full) },
    whole("cables", Extent::Full),
    Group { name: "bad-cables", cables: BAD_CABLES, ..whole("cables", Extent::Full) },
    whole("tc", Extent::Full),
    Group { name: "untouched", part: "untouched", ..whole("e2e", Extent::Full) },
    Group { name: "follows", part: "follows_a_backend", ..whole("e2e", Extent::Full) },
    whole("fragments", Extent::Full),
    whole("icmp", Extent::Full),
    whole("local", Extent::Full),
    whole("takeover", Extent::Full),
    Group { name: "takeover-tc", mode: "tc", ..whole("takeover", Extent::Full) },
    whole("lifecycle", Extent::Full),
    whole("hairpin", Extent::Full),
    whole("neighbours", Extent::Full),
    whole("datapath", Extent::Full),
];

/// The groups to run: of these names, or, if there are none, all of that extent. A name can be followed by a colon and part
/// of the names of tests, and then only those are run.
///
/// # Errors
/// If there is none of a name.
pub fn choose(names: &[String], extent: Extent) -> Result<Vec<Group<'_>>> {
    if names.is_empty() {
        return Ok(ALL.into_iter().filter(|group| extent == Extent::Full || group.extent == Extent::Short).collect());
    }
    names.iter().map(|name| find(name)).collect()
}

fn find(name: &str) -> Result<Group<'_>> {
    let (name, part) = name.split_once(':').map_or((name, None), |(name, part)| (name, Some(part)));
    let Some(group) = ALL.into_iter().find(|group| group.name == name) else {
        let known: Vec<_> = ALL.iter().map(|group| group.name).collect();
        bail!("there is no group of tests {name}; there are {}", known.join(", "));
    };
    Ok(Group { part: part.unwrap_or(group.part), ..group })
}

/// The line that tells a machine to run a group whose program is at this path.
pub fn line(group: &Group<'_>, program: &str) -> String {
    let Group { name, part, mode, cables, .. } = *group;
    let fields = [name, program, part, mode, cables].map(|field| if field.is_empty() { "-" } else { field });
    format!("{}\n", fields.join("\t"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_chosen_by_name_or_by_extent() {
        let names = |chosen: Vec<Group<'_>>| chosen.iter().map(|group| group.name).collect::<Vec<_>>();
        assert_eq!(choose(&[], Extent::Full).map(names).ok(), Some(names(ALL.to_vec())));
        let short = choose(&[], Extent::Short).expect("no name can be wrong");
        assert!(!short.is_empty() && short.len() < ALL.len());
        assert_eq!(choose(&["icmp".to_owned()], Extent::Short).map(names).ok(), Some(vec!["icmp"]));
        assert!(choose(&["e3e".to_owned()], Extent::Full).is_err());
    }

    #[test]
    fn some_tests_of_a_group_are_chosen_by_part_of_their_names() {
        let names = ["takeover-tc:another_layout".to_owned()];
        let chosen = choose(&names, Extent::Full).expect("there is such a group");
        assert_eq!(chosen.iter().map(|group| (group.mode, group.part)).collect::<Vec<_>>(), [("tc", "another_layout")]);
    }

    #[test]
    fn a_group_has_a_name_of_its_own_in_one_word() {
        for (number, group) in ALL.iter().enumerate() {
            assert!(!group.name.contains(char::is_whitespace), "{}", group.name);
            assert!(ALL.iter().skip(number + 1).all(|other| other.name != group.name), "{}", group.name);
        }
    }

    #[test]
    fn a_line_has_no_empty_field() {
        let group = Group { cables: "loss 1%", ..whole("e2e", Extent::Full) };
        assert_eq!(line(&group, "/p"), "e2e\t/p\t-\t-\tloss 1%\n");
    }
}
