//! "Did you mean": the known name that is closest to an unknown one.

/// Names longer than this are not compared: the table is quadratic.
const MAX_COMPARED: usize = 64;

/// The closest of these names, if it is close enough to be meant.
fn closest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if unknown.len() > MAX_COMPARED {
        return None;
    }
    let allowed = (unknown.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter(|name| name.len() <= MAX_COMPARED)
        .map(|name| (distance(unknown, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// `; did you mean x?`, or nothing.
pub(in crate::policy::site) fn did_you_mean<'a>(
    unknown: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> String {
    closest(unknown, known).map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// Edits from one to the other, two letters that changed places being one; upper and lower case are one.
fn distance(a: &str, b: &str) -> usize {
    let letters = |text: &str| text.to_lowercase().chars().collect::<Vec<char>>();
    let (a, b) = (letters(a), letters(b));
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let at = |up: usize, left: usize| {
                let row = i.checked_sub(up).and_then(|i| if up == 0 { None } else { rows.get(i) });
                let cell = j.checked_sub(left).and_then(|j| row.and_then(|row| row.get(j)));
                cell.copied().unwrap_or(usize::MAX / 2)
            };
            let letter = |of: &[char], n: usize| of.get(n.wrapping_sub(1)).copied();
            let is_same = letter(&a, i) == letter(&b, j);
            let is_swap = i > 1
                && j > 1
                && letter(&a, i) == letter(&b, j - 1)
                && letter(&a, i - 1) == letter(&b, j);
            let replaced = at(1, 1) + usize::from(!is_same);
            let swapped = if is_swap { at(2, 2) + 1 } else { usize::MAX };
            let inserted = row.last().copied().unwrap_or(usize::MAX / 2) + 1;
            row.push(replaced.min(swapped).min(inserted).min(at(1, 0) + 1));
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn near_misses_are_recognised_and_others_are_not() {
        let known = ["firmware", "manufacturer", "model"];
        assert_eq!(closest("firmwre", known), Some("firmware"));
        assert_eq!(closest("Manufacturer", known), Some("manufacturer"));
        assert_eq!(closest("modle", known), Some("model"));
        assert_eq!(closest("nodes", known), None, "three edits of five letters are another word");
        assert_eq!(closest("clock", known), None);
        assert_eq!(closest(&"m".repeat(1000), known), None);
    }
}
