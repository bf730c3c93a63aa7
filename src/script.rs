//! Writing systems.

/// Whether a character is of a script that writes no spaces between words: Thai, Lao, Burmese, Khmer; kana and Han, with
/// their punctuation, full-width letters and half-width kana.
pub(crate) fn is_unspaced(c: char) -> bool {
    is_dictionary(c)
        || matches!(c, '\u{3000}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{ff00}'..='\u{ff9f}' | '\u{20000}'..='\u{3ffff}')
}

/// Those of them in which the line breaking algorithm leaves breaks to a dictionary (UAX #14, class SA).
pub(crate) fn is_dictionary(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_without_spaces_are_known() {
        for (text, expected) in [("本カー。、（ｶＡㇰกຂကក", true), ("aéя한ا,.-«»’…", false)]
        {
            assert!(text.chars().all(|c| is_unspaced(c) == expected), "{text}");
        }
    }
}
