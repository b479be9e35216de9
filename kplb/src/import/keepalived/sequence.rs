//! `~SEQ(name, first, step, last) line` and `~LST(name, value, ...) line`: a line for each of some values.

/// A line that stands for several.
#[derive(Debug)]
pub(super) struct Sequence {
    /// What each of them is.
    line: String,
    values: Values,
}

#[derive(Debug)]
enum Values {
    /// Wide enough for the number after the last one.
    Numbers {
        name: String,
        next: i128,
        step: i128,
        last: i128,
        base: Base,
    },
    Lists {
        names: Vec<String>,
        lists: std::vec::IntoIter<Vec<String>>,
    },
}

#[derive(Clone, Copy, Debug)]
enum Base {
    Decimal,
    Hexadecimal,
}

impl Sequence {
    /// Reads one; none if the line is wrong.
    pub(super) fn read(line: &str) -> Option<Self> {
        let (values, line) = if let Some(rest) = line.strip_prefix("~SEQx") {
            numbers(rest, Base::Hexadecimal)?
        } else if let Some(rest) = line.strip_prefix("~SEQ") {
            numbers(rest, Base::Decimal)?
        } else {
            lists(line.strip_prefix("~LST")?)?
        };
        Some(Self { line: line.trim_start_matches([' ', '\t']).to_owned(), values })
    }

    /// The next of its lines, and what the names in it stand for.
    pub(super) fn next(&mut self) -> Option<(Vec<(String, String)>, String)> {
        let names = match &mut self.values {
            Values::Numbers { name, next, step, last, base } => {
                let is_over = if *step > 0 { *next > *last } else { *next < *last };
                if is_over {
                    return None;
                }
                let value = match base {
                    Base::Decimal => next.to_string(),
                    Base::Hexadecimal => format!("{next:x}"),
                };
                *next += *step;
                vec![(name.clone(), value)]
            }
            Values::Lists { names, lists } => names.iter().cloned().zip(lists.next()?).collect(),
        };
        Some((names, self.line.clone()))
    }
}

fn numbers(text: &str, base: Base) -> Option<(Values, &str)> {
    let (inner, line) = text.trim_start_matches([' ', '\t']).strip_prefix('(')?.split_once(')')?;
    let mut parts = inner.split(',').map(|part| part.trim_matches([' ', '\t']));
    let name = parts.next().filter(|name| !name.is_empty())?.to_owned();
    let numbers: Vec<i128> = parts.map(number).collect::<Option<_>>()?;
    let (next, step, last) = match numbers[..] {
        [last] if last < 0 => (-1, -1, last),
        [last] if last == 0 => (1, -1, last),
        [last] => (1, 1, last),
        [first, last] => (first, if first <= last { 1 } else { -1 }, last),
        [first, step, last] if step != 0 && (first == last || (first < last) == (step > 0)) => (first, step, last),
        _ => return None,
    };
    Some((Values::Numbers { name, next, step, last, base }, line))
}

/// A number as C reads it: decimal, or hexadecimal after `0x`.
fn number(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let number = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => i64::from_str_radix(digits, 16),
        None if digits.len() > 1 && digits.starts_with('0') => i64::from_str_radix(digits, 8),
        None => digits.parse(),
    };
    number.ok().map(|number: i64| sign * i128::from(number))
}

fn lists(text: &str) -> Option<(Values, &str)> {
    let inner = text.trim_start_matches([' ', '\t']).strip_prefix('(')?;
    let end = inner.find(')')?;
    let (inner, line) = (&inner[..end], &inner[end + 1..]);
    let mut items = items(inner)?.into_iter();
    let names = items.next().filter(|names| names.iter().all(|name| !name.is_empty()))?;
    let lists: Vec<Vec<String>> = items.collect();
    let fits = !lists.is_empty() && lists.iter().all(|list| list.len() == names.len());
    fits.then(|| (Values::Lists { names, lists: lists.into_iter() }, line))
}

/// What commas separate: single words, or several in braces.
fn items(text: &str) -> Option<Vec<Vec<String>>> {
    let word = |text: &str| text.trim_matches([' ', '\t']).to_owned();
    let mut items = Vec::new();
    let mut rest = text.trim_matches([' ', '\t']);
    loop {
        let after = if let Some(inner) = rest.strip_prefix('{') {
            let (inner, after) = inner.split_once('}')?;
            items.push(inner.split(',').map(word).collect());
            after.trim_start_matches([' ', '\t'])
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            items.push(vec![word(&rest[..end])]);
            &rest[end..]
        };
        match after.strip_prefix(',') {
            Some(after) => rest = after.trim_start_matches([' ', '\t']),
            None if after.is_empty() => return Some(items),
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(line: &str) -> Option<Vec<String>> {
        let mut sequence = Sequence::read(line)?;
        let mut values = Vec::new();
        while let Some((names, line)) = sequence.next() {
            assert_eq!(line, "x");
            values.push(names.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "));
        }
        Some(values)
    }

    #[test]
    fn sequences() {
        for (line, expected) in [
            ("~SEQ(A, 1, 3) x", vec!["A=1", "A=2", "A=3"]),
            ("~SEQ(A,3) x", vec!["A=1", "A=2", "A=3"]),
            ("~SEQ(A, -2) x", vec!["A=-1", "A=-2"]),
            ("~SEQ(A,6,-2,1) x", vec!["A=6", "A=4", "A=2"]),
            ("~SEQ (A,3,1)x", vec!["A=3", "A=2", "A=1"]),
            ("~SEQx(A, 0x90, 0x10, 0xb0) x", vec!["A=90", "A=a0", "A=b0"]),
            (
                "~SEQ(A, 9223372036854775806, 9223372036854775807) x",
                vec!["A=9223372036854775806", "A=9223372036854775807"],
            ),
            ("~LST(A, 1, b) x", vec!["A=1", "A=b"]),
            ("~LST({A, B}, {1,2},{3,4}) x", vec!["A=1 B=2", "A=3 B=4"]),
        ] {
            assert_eq!(values(line), Some(expected.into_iter().map(str::to_owned).collect()), "{line}");
        }
    }

    #[test]
    fn what_is_none() {
        for line in [
            "~SEQ x",
            "~SEQ(A) x",
            "~SEQ(A,1",
            "~SEQ(A,1,0,2) x",
            "~SEQ(A,1,-1,2) x",
            "~SEQ(,1) x",
            "~SEQ(A,b) x",
            "~LST(A) x",
            "~LST({A,B},{1}) x",
            "~LST({A,{1}) x",
            "~FOO(A,1) x",
            "~",
        ] {
            assert!(values(line).is_none(), "{line}");
        }
    }
}
