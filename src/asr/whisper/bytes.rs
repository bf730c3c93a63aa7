//! Text as byte-level tokens hold it.
//!
//! In: text or bytes. Out: the characters that stand for bytes in a vocabulary, the pieces within which tokens stay, and
//! the parts of a piece that are tokens.
//! Source: openai/gpt-2, `src/encoder.py` (`bytes_to_unicode` and the pattern).

/// The character that stands for a byte: itself where it can be seen; the others, in their order, are those from 256 on.
pub(crate) fn char_of(byte: u8) -> char {
    let code = match byte {
        0..=0x20 => 256 + u32::from(byte),
        0x7f..=0xa0 => 256 + 33 + u32::from(byte - 0x7f),
        0xad => 256 + 67,
        visible => u32::from(visible),
    };
    char::from_u32(code).unwrap_or_default()
}

/// The byte that a character stands for.
pub(crate) fn byte_of(c: char) -> Option<u8> {
    let byte = match u32::from(c) {
        code @ 256..=288 => code - 256,
        code @ 289..=322 => code - 289 + 0x7f,
        323 => 0xad,
        code => code,
    };
    u8::try_from(byte).ok().filter(|&byte| char_of(byte) == c)
}

/// The pieces of a text that are encoded one by one: runs of letters, of digits or of other signs, each with the space
/// before it; English contractions; white space.
pub(crate) fn pieces(text: &str) -> Vec<&str> {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Letter,
        Digit,
        Space,
        Other,
    }
    let kind = |c: char| match c {
        c if c.is_alphabetic() => Kind::Letter,
        c if c.is_numeric() => Kind::Digit,
        c if c.is_whitespace() => Kind::Space,
        _ => Kind::Other,
    };
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let contraction = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].into_iter().find(|c| rest.starts_with(c));
        let run = |from: usize| {
            let kind_of_run = rest[from..].chars().next().map(kind);
            let end = rest[from..].char_indices().find(|&(_, c)| Some(kind(c)) != kind_of_run);
            end.map_or(rest.len(), |(end, _)| from + end)
        };
        let length = match contraction {
            Some(contraction) => contraction.len(),
            None if first == ' ' && rest[1..].chars().next().is_some_and(|c| !c.is_whitespace()) => run(1),
            None if first.is_whitespace() => {
                // The last space of several belongs to what follows.
                let end = run(0);
                let last = rest[..end].chars().next_back().map_or(0, char::len_utf8);
                if end < rest.len() && end > last { end - last } else { end }
            }
            None => run(0),
        };
        pieces.push(&rest[..length]);
        rest = &rest[length..];
    }
    pieces
}

/// The parts that are left of `piece` when all merges are done: of two neighbours those first whose joint rank is lowest.
/// Source: openai/tiktoken, `educational.py`.
pub(crate) fn merged(piece: &[u8], rank: impl Fn(&[u8]) -> Option<u32>) -> Vec<&[u8]> {
    let end_of = |starts: &[(usize, Option<u32>)], i: usize| starts.get(i).map_or(piece.len(), |(at, _)| *at);
    // Where a part starts, and the rank of it joined with the next.
    let mut starts: Vec<(usize, Option<u32>)> =
        (0..piece.len()).map(|at| (at, piece.get(at..at + 2).and_then(&rank))).collect();
    while let Some((_, i)) = (0..starts.len()).filter_map(|i| Some((starts[i].1?, i))).min() {
        starts.remove(i + 1);
        let joined = |starts: &[(usize, Option<u32>)], i: usize| {
            if i + 1 < starts.len() { rank(&piece[starts[i].0..end_of(starts, i + 2)]) } else { None }
        };
        starts[i].1 = joined(&starts, i);
        if i > 0 {
            starts[i - 1].1 = joined(&starts, i - 1);
        }
    }
    (0..starts.len()).map(|i| &piece[starts[i].0..end_of(&starts, i + 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_character() {
        for byte in 0..=255 {
            assert_eq!(byte_of(char_of(byte)), Some(byte));
        }
        assert_eq!([char_of(b' '), char_of(b'a'), char_of(b'\n')], ['Ġ', 'a', 'Ċ']);
        assert_eq!(byte_of('€'), None);
    }

    #[test]
    fn pieces_are_those_of_the_pattern() {
        for (text, expected) in [
            ("Hello world, it's 42nd.", &["Hello", " world", ",", " it", "'s", " 42", "nd", "."][..]),
            ("a  b   ", &["a", " ", " b", "   "]),
            ("\n\tx", &["\n", "\t", "x"]),
            ("", &[]),
        ] {
            assert_eq!(pieces(text), expected, "{text:?}");
        }
    }
}
