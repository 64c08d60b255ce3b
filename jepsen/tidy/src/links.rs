//! Relative links in Markdown lead to files that exist.

use std::path::Path;

use crate::Problem;

/// All problems of the document at `path` (relative to `root`).
pub fn check(root: &Path, path: &str, text: &str) -> Vec<Problem> {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let mut problems = Vec::new();
    let mut fenced = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in targets(line) {
            let file = target.split(['#', '?']).next().unwrap_or_default();
            if !file.is_empty() && !root.join(folder).join(file).exists() {
                problems.push(Problem::new(path, number, format!("the link to {target:?} leads nowhere")));
            }
        }
    }
    if fenced {
        problems.push(Problem::new(path, 0, "a block of code isn't closed"));
    }
    problems
}

/// Targets of `[text](target)` that are no addresses of other places.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?.split_whitespace().next()?;
        let elsewhere = target.contains("://") || target.starts_with("mailto:");
        (!elsewhere).then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines with broken links in a document `docs/a.md` beside `docs/b.md` and `c.rs`.
    fn broken(text: &str) -> Vec<usize> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("docs")).unwrap();
        for file in ["docs/b.md", "c.rs"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        check(dir.path(), "docs/a.md", text).iter().map(|p| p.line).collect()
    }

    #[test]
    fn links_are_followed() {
        assert_eq!(
            broken("[b](b.md) [c](../c.rs#L3) [here](#part) [out](https://example.org/x) [d](..)"),
            [0; 0]
        );
        assert_eq!(broken("x\n[b](b.md) [c](c.rs)\n[`d`](d.md \"title\")"), [2, 3]);
        assert_eq!(broken("```\n[c](c.rs)\n```\n[c](c.rs)"), [4]);
        assert_eq!(broken("```\n[c](c.rs)"), [0]);
    }
}
