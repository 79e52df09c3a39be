//! The lines of a page that readers of some families look at, and no others.

use memchr::memchr;

/// The names of samples that somebody reads, such as `vllm:num_requests_waiting`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Families(Vec<Box<[u8]>>);

impl Families {
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(
            names
                .into_iter()
                .filter(|name| !name.is_empty())
                .map(|name| name.into_bytes().into_boxed_slice())
                .collect(),
        )
    }

    /// Which of the names the line has; it ends with a line feed.
    fn of(&self, line: &[u8]) -> Option<usize> {
        self.0.iter().position(|name| {
            let length = name.len();
            // The last byte differs more often than the first, which is a prefix of the engine.
            line.len() > length
                && line[length - 1] == name[length - 1]
                && matches!(line[length], b'{' | b' ' | b'\t' | b'\n')
                && line.starts_with(name)
        })
    }

    /// Whether a line is the type of this family.
    fn is_type(&self, line: &[u8], family: usize) -> bool {
        line.strip_prefix(b"# TYPE ")
            .and_then(|rest| rest.strip_prefix(&*self.0[family]))
            .is_some_and(|rest| rest.first() == Some(&b' '))
    }
}

/// What a reader of one family has seen so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Before,
    Within,
    Behind,
}

/// The excerpt of a page whose last line is complete.
///
/// A reader takes the first block of lines of its family, and looks at the line before it, which may name a type. Whatever it
/// finds on the page it finds in the excerpt.
pub fn excerpt(page: &[u8], families: &Families) -> Vec<u8> {
    let mut found = Vec::with_capacity(1024);
    let mut blocks = vec![Block::Before; families.0.len()];
    let mut within = None;
    let (mut previous, mut rest) = (&page[..0], page);
    while let Some(end) = memchr(b'\n', rest) {
        let (line, behind) = rest.split_at(end + 1);
        let family = families.of(line);
        if family != within {
            if let Some(ended) = within {
                blocks[ended] = Block::Behind;
            }
            within = family;
        }
        if let Some(family) = family {
            if blocks[family] == Block::Before {
                blocks[family] = Block::Within;
                if families.is_type(previous, family) {
                    found.extend_from_slice(previous);
                }
            }
            if blocks[family] == Block::Within {
                found.extend_from_slice(line);
            }
        }
        previous = line;
        rest = behind;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(page: &str, names: &[&str]) -> String {
        let families = Families::new(names.iter().map(ToString::to_string));
        String::from_utf8(excerpt(page.as_bytes(), &families)).unwrap()
    }

    #[test]
    fn the_first_block_of_each_family_with_its_type() {
        let page = "# HELP a x\n# TYPE a gauge\na{b=\"1\"} 1\na 2\nab 3\nc 4\na 5\n# TYPE c gauge\nd 6\n";
        assert_eq!(cut(page, &["a"]), "# TYPE a gauge\na{b=\"1\"} 1\na 2\n");
        assert_eq!(cut(page, &["d", "c", "ab"]), "ab 3\nc 4\nd 6\n", "a type of another family is none");
        assert_eq!(cut(page, &["e"]), "");
        assert_eq!(cut(page, &[]), "");
        assert_eq!(cut("", &["a"]), "");
    }

    #[test]
    fn a_type_counts_only_directly_before() {
        assert_eq!(cut("# TYPE a summary\n# HELP a\na 1\n", &["a"]), "a 1\n");
        assert_eq!(cut("# TYPE ab summary\na 1\n", &["a"]), "a 1\n");
        assert_eq!(cut("# TYPE a summary\na 1\n# TYPE a gauge\na 2\n", &["a"]), "# TYPE a summary\na 1\n");
    }

    #[test]
    fn ends_of_names() {
        assert_eq!(cut("a\n", &["a"]), "a\n");
        assert_eq!(cut("a\t1\na-1\na}\n", &["a"]), "a\t1\n");
    }
}
