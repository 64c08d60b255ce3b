//! `.funcignore`: what of a folder isn't packed, in the language of `.gitignore`.
//!
//! A line is a pattern; the last one that matches decides, `!` takes a name in again. `*` and `?` match within
//! a name, `**` over folders; a slash in front or within binds a pattern to the root, one at the end to folders.
//! What is below an ignored folder can't be taken in again, as with git. Classes (`[a-z]`) are refused: to
//! pass over one silently would pack what was meant to stay.

use std::path::Path;

use crate::CliError;

const FILE: &str = ".funcignore";

/// The patterns of a folder.
#[derive(Debug, Default)]
pub(super) struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    /// By segments of the path; `**` is one.
    segments: Vec<String>,
    takes_in: bool,
    only_folders: bool,
}

impl Ignore {
    /// Reads the file, if there is one.
    pub(super) fn read(folder: &Path) -> Result<Ignore, CliError> {
        let path = folder.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                Ignore::parse(&text).map_err(|error| CliError::Failed(format!("{}: {error}", path.display())))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Ignore::default()),
            Err(error) => Err(CliError::Failed(format!("{} can't be read: {error}", path.display()))),
        }
    }

    fn parse(text: &str) -> Result<Ignore, String> {
        let mut patterns = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.contains(['[', '\\']) {
                return Err(format!("line {}: {line}: [ ] and \\ are not understood here", index + 1));
            }
            let (takes_in, line) = match line.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, line),
            };
            let (only_folders, line) = match line.strip_suffix('/') {
                Some(rest) => (true, rest),
                None => (false, line),
            };
            let mut segments: Vec<String> =
                line.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
            if segments.is_empty() {
                continue;
            }
            if !line.contains('/') {
                segments.insert(0, "**".to_owned());
            }
            patterns.push(Pattern { segments, takes_in, only_folders });
        }
        Ok(Ignore { patterns })
    }

    /// Whether a file or folder, named from the root, is left out.
    pub(super) fn matches(&self, path: &Path, is_folder: bool) -> bool {
        let names: Vec<&str> = path.iter().filter_map(|name| name.to_str()).collect();
        let fits = |pattern: &&Pattern| {
            (is_folder || !pattern.only_folders) && segments_match(&pattern.segments, &names)
        };
        self.patterns.iter().rev().find(fits).is_some_and(|pattern| !pattern.takes_in)
    }
}

fn segments_match(pattern: &[String], names: &[&str]) -> bool {
    match (pattern.split_first(), names.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "**" => match rest.is_empty() {
            // At the end: all that is inside.
            true => !names.is_empty(),
            false => (0..=names.len()).any(|skipped| segments_match(rest, &names[skipped..])),
        },
        (Some((first, rest)), Some((name, names))) => {
            name_matches(first.as_bytes(), name.as_bytes()) && segments_match(rest, names)
        }
        _ => false,
    }
}

/// `*` is any run of characters, `?` is one byte. Linear in memory, without recursion: the last star is all
/// that has to be tried again.
fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while place < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, place));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[place] => {
                at += 1;
                place += 1;
            }
            _ => match &mut star {
                Some((star_at, from)) => {
                    *from += 1;
                    (at, place) = (*star_at + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths of folders end with a slash.
    #[track_caller]
    fn check(patterns: &str, ignored: &[&str], kept: &[&str]) {
        let ignore = Ignore::parse(patterns).unwrap();
        for (paths, expected) in [(ignored, true), (kept, false)] {
            for path in paths {
                let found = ignore.matches(Path::new(path.trim_end_matches('/')), path.ends_with('/'));
                assert_eq!(found, expected, "{patterns:?} {path}");
            }
        }
    }

    /// The forms of gitignore(5), but classes.
    #[test]
    fn patterns() {
        check("*.md", &["a.md", "x/y/a.md", ".md"], &["a.mdx", "md"]);
        check("a?c", &["abc", "x/abc"], &["ac", "abbc"]);
        check("a*b*c", &["abc", "axxbyyc", "abbc"], &["ab", "axc"]);
        check("tests/", &["tests/", "x/tests/"], &["tests", "mytests/"]);
        check("/tests", &["tests", "tests/"], &["x/tests"]);
        check("doc/*.txt", &["doc/a.txt"], &["doc/x/a.txt", "x/doc/a.txt"]);
        check("doc/**/a", &["doc/a", "doc/x/y/a"], &["a", "doc/b"]);
        check("**/cache", &["cache", "x/cache"], &["cached"]);
        check("logs/**", &["logs/a", "logs/x/a"], &["logs/", "a/logs/x"]);
        check("*.md\n!keep.md\n", &["a.md"], &["keep.md"]);
        check("!keep.md\n*.md", &["keep.md"], &[]);
        check("# a comment\n\n  \n/\n", &[], &["a", "# a comment"]);
    }

    /// What isn't understood is said, not passed over.
    #[test]
    fn refusals() {
        assert!(Ignore::parse("a\n[ab].md").unwrap_err().starts_with("line 2: [ab].md"));
        let folder = tempfile::tempdir().unwrap();
        assert!(!Ignore::read(folder.path()).unwrap().matches(Path::new("a"), false));
        std::fs::write(folder.path().join(FILE), b"\xff").unwrap();
        assert!(Ignore::read(folder.path()).unwrap_err().to_string().contains(FILE));
    }
}
