//! Where a phrase may be broken, by the words on both sides.
//!
//! In: a word, the word behind it, and their language. Out: how good a break between them is. Word lists for languages
//! where short ones do; elsewhere punctuation and names decide.

use crate::config::Language;

/// A break between two words, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Break {
    /// Behind a sentence.
    Sentence,
    /// Behind other punctuation.
    Clause,
    /// Before a conjunction.
    Conjunction,
    /// Before a preposition.
    Preposition,
    /// Anywhere else.
    Middle,
    /// Behind a conjunction or a preposition; within a word of a script without spaces.
    Awkward,
    /// Article and noun, auxiliary and verb, first and last name.
    Never,
}

impl Break {
    /// What the end of a line here costs, in squared characters: to come behind a comma, a break is moved by up to ten
    /// characters.
    pub(super) const fn in_cue(self) -> u64 {
        match self {
            Self::Sentence | Self::Clause => 0,
            Self::Conjunction => 60,
            Self::Preposition => 80,
            Self::Middle => 200,
            Self::Awkward => 450,
            Self::Never => 2000,
        }
    }

    /// What the end of a cue here costs: more, as the eye leaves the text.
    pub(super) const fn of_cue(self) -> u64 {
        match self {
            Self::Sentence => 0,
            Self::Clause => 250,
            Self::Conjunction => 450,
            Self::Preposition => 500,
            Self::Middle => 1000,
            Self::Awkward => 2000,
            Self::Never => 6000,
        }
    }
}

/// Words of one language, in lower case, separated by spaces.
struct Lists {
    /// Articles, and what else is nothing without the word behind it: possessives, particles of negation.
    articles: &'static str,
    auxiliaries: &'static str,
    conjunctions: &'static str,
    prepositions: &'static str,
}

impl Lists {
    fn contain(&self, word: &str) -> bool {
        [self.articles, self.auxiliaries, self.conjunctions, self.prepositions]
            .into_iter()
            .any(|list| contains(list, word))
    }
}

/// Titles before a name.
const TITLES: &str =
    "mr. mrs. ms. dr. prof. st. mr mrs ms dr prof mme mlle m. sr. sra. sig. herr frau dhr. mevr. dott.";

fn lists(language: Language) -> Option<Lists> {
    Some(match language.code() {
        "en" => Lists {
            articles: "a an the my your his her its our their this these those every each no",
            auxiliaries: "am is are was were be been being has have had do does did will would shall should can could \
                          may might must won't wouldn't can't cannot couldn't don't doesn't didn't isn't aren't wasn't \
                          weren't haven't hasn't hadn't shouldn't i'm you're we're they're i've you've we've they've i'll \
                          you'll he'll she'll it'll we'll they'll",
            conjunctions: "and or but nor so yet because although though while when whenever where if unless until \
                           since that which who whom whose whether as than",
            prepositions: "about above across after against along among around at before behind below beneath beside \
                           between beyond by during except for from in inside into like near of off on onto out outside \
                           over through throughout to toward towards under up upon with within without",
        },
        "fr" => Lists {
            articles: "le la les un une des du au aux mon ma mes ton ta tes son sa ses notre nos votre vos leur leurs ce \
                       cet cette ces ne",
            auxiliaries: "suis es est sommes êtes sont étais était étions étiez étaient sera seront ai as a avons avez ont \
                          avais avait avions aviez avaient aura auront vais vas va allons allez vont peux peut pouvons \
                          pouvez peuvent dois doit devons devez doivent",
            conjunctions: "et ou mais donc or ni car que qui dont où lorsque quand puisque comme si quoique parce",
            prepositions: "à de en dans par pour sur sous avec sans chez vers entre contre depuis pendant avant après \
                           devant derrière jusque jusqu'à malgré selon",
        },
        "es" => Lists {
            articles: "el la los las un una unos unas lo al del mi mis tu tus su sus nuestro nuestra nuestros nuestras este \
                       esta estos estas ese esa esos esas no se",
            auxiliaries: "he has ha hemos habéis han había habías habíamos habían soy eres es somos son era eran fue fueron \
                          estoy estás está estamos están estaba estaban voy vas va vamos van puedo puede podemos pueden \
                          debe deben",
            conjunctions: "y e o u pero sino ni que porque aunque si cuando donde mientras como pues quien",
            prepositions: "a ante bajo con contra de desde durante en entre hacia hasta mediante para por según sin sobre \
                           tras",
        },
        "de" => Lists {
            articles: "der die das den dem des ein eine einen einem einer eines kein keine keinen mein meine dein deine \
                       sein seine ihr ihre unser unsere im am zum zur vom beim ins ans dieser diese dieses nicht",
            auxiliaries: "bin bist ist sind seid war waren habe hast hat haben habt hatte hatten werde wirst wird werden \
                          werdet wurde wurden würde würden kann kannst können könnte muss müssen soll sollen will wollen \
                          darf dürfen",
            conjunctions: "und oder aber denn sondern weil dass ob wenn als während obwohl damit bevor nachdem bis sobald \
                           sowie wo der welche welcher welches",
            prepositions: "an auf aus bei durch für gegen hinter in mit nach neben ohne seit über um unter von vor wegen zu \
                           zwischen",
        },
        "it" => Lists {
            articles: "il lo la i gli le un uno una al allo alla ai agli alle del dello della dei degli delle nel nello nella \
                       nei negli nelle dal dallo dalla dai dagli dalle sul sullo sulla sui sugli sulle mio mia tuo tua suo sua \
                       nostro nostra vostro vostra questo questa quel quella non si",
            auxiliaries: "ho hai ha abbiamo avete hanno aveva avevano sono sei è siamo siete era erano sarà saranno sto stai \
                          sta stiamo stanno può possono deve devono",
            conjunctions: "e ed o ma però né che perché se quando mentre come dove anche quindi poiché",
            prepositions: "di a da in con su per tra fra senza dopo prima verso contro durante",
        },
        "pt" => Lists {
            articles: "o a os as um uma uns umas ao à aos às do da dos das no na nos nas pelo pela meu minha teu tua seu sua \
                       nosso nossa este esta esse essa não se",
            auxiliaries: "tenho tens tem temos têm tinha tinham hei há sou és é somos são era eram foi foram estou está \
                          estamos estão estava estavam vou vai vamos vão pode podem deve devem",
            conjunctions: "e ou mas porém nem que porque embora se quando enquanto como onde pois quem",
            prepositions: "ante até com contra de desde durante em entre para por perante sem sob sobre após",
        },
        "nl" => Lists {
            articles: "de het een mijn je jouw zijn haar ons onze jullie hun deze dit die dat geen niet",
            auxiliaries: "ben bent is was waren heb hebt heeft hebben had hadden word wordt worden werd werden zal zult \
                          zullen zou zouden kan kunt kunnen kon moet moeten mag mogen wil willen",
            conjunctions: "en of maar want dus omdat als terwijl hoewel toen wanneer waar zodat voordat nadat",
            prepositions: "aan achter bij binnen boven door in langs met na naast om onder op over sinds te tegen tot tussen \
                           uit van via voor zonder",
        },
        "ru" => Lists {
            articles: "не ни мой моя моё мои твой твоя ваш ваша ваши наш наша наши его её их этот эта это эти",
            auxiliaries: "буду будешь будет будем будете будут был была было были",
            conjunctions: "и а но или да что чтобы если когда пока потому хотя как где который которая которое которые",
            prepositions: "в во на с со к ко по из от до за у о об про при для без под над перед через между после около",
        },
        _ => return None,
    })
}

/// Judges breaks within one text.
pub(super) struct Phrases {
    lists: Option<Lists>,
    sentence_start: bool,
}

impl Phrases {
    pub(super) fn new(language: Option<Language>) -> Self {
        Self { lists: language.and_then(lists), sentence_start: true }
    }

    /// The break between two words that a space separates. To be asked for one pair after the other.
    pub(super) fn next(&mut self, word: &str, next: &str) -> Break {
        let first = std::mem::replace(&mut self.sentence_start, false);
        let lower = word.to_lowercase();
        if contains(TITLES, &lower) && is_capitalised(next) {
            return Break::Never;
        }
        if let Some(punctuated) = behind_punctuation(word) {
            self.sentence_start = punctuated == Break::Sentence;
            return punctuated;
        }
        let names = is_capitalised(bare(word)) && is_capitalised(next);
        let word = bare(&lower);
        // A sentence's first word is capitalised in any case: a name, unless it is known for something else.
        if names && !(first && self.lists.as_ref().is_some_and(|lists| lists.contain(word))) {
            return Break::Never;
        }
        let Some(lists) = &self.lists else { return Break::Middle };
        let next = next.to_lowercase();
        let next = bare(&next);
        let is_preposition = contains(lists.prepositions, next);
        let is_conjunction = contains(lists.conjunctions, next);
        if contains(lists.articles, word) && !is_preposition && !is_conjunction {
            return Break::Never;
        }
        let is_function_word = is_preposition || is_conjunction || contains(lists.articles, next);
        if contains(lists.auxiliaries, word) && !is_function_word {
            Break::Never
        } else if contains(lists.prepositions, word) || contains(lists.conjunctions, word) {
            Break::Awkward
        } else if is_conjunction {
            Break::Conjunction
        } else if is_preposition {
            Break::Preposition
        } else {
            Break::Middle
        }
    }
}

/// The break behind a word's punctuation, if it has any.
pub(super) fn behind_punctuation(word: &str) -> Option<Break> {
    let closing = |c: char| {
        matches!(c, '"' | '\'' | '”' | '’' | '»' | ')' | ']' | '}' | '」' | '』' | '）' | ' ' | '\u{a0}' | '\u{202f}')
    };
    match word.trim_end_matches(closing).chars().next_back()? {
        '.' | '!' | '?' | '…' | '。' | '！' | '？' | '؟' | '।' => Some(Break::Sentence),
        ',' | ';' | ':' | '—' | '–' | '、' | '，' | '；' | '：' | '،' | '؛' => Some(Break::Clause),
        _ => None,
    }
}

fn contains(list: &str, word: &str) -> bool {
    list.split(' ').any(|entry| entry == word)
}

/// A word without what is written around it.
fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_alphanumeric())
}

/// `Ada`, and not `I`, `NATO` or `7th`.
fn is_capitalised(word: &str) -> bool {
    let mut chars = word.chars();
    chars.next().is_some_and(char::is_uppercase) && chars.next().is_some_and(char::is_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_together_is_known() {
        use Break::*;
        for (language, text, expected) in [
            (
                "en",
                "The end. He met Ada Lovelace, and the dog at home",
                vec![Never, Sentence, Middle, Middle, Never, Clause, Awkward, Never, Preposition, Awkward],
            ),
            ("en", "Yes. Katherine Hepburn-Smith won. In Paris", vec![Sentence, Never, Middle, Sentence, Awkward]),
            ("en", "“Ada Lovelace” has", vec![Never, Middle]),
            ("en", "We have been waiting for Dr. Who", vec![Middle, Never, Never, Preposition, Awkward, Never]),
            ("en", "the number followed by it", vec![Never, Middle, Preposition, Awkward]),
            ("en", "\"Well done!\" I am in", vec![Middle, Sentence, Middle, Preposition]),
            ("fr", "Je ne suis pas dans la maison", vec![Middle, Never, Never, Preposition, Awkward, Never]),
            ("es", "el perro y la casa", vec![Never, Conjunction, Awkward, Never]),
            ("de", "ich habe gesagt, dass im Haus", vec![Middle, Never, Clause, Awkward, Never]),
            ("it", "il cane ha mangiato", vec![Never, Middle, Never]),
            ("pt", "o menino foi para casa", vec![Never, Middle, Preposition, Awkward]),
            ("nl", "het huis is van mij", vec![Never, Middle, Preposition, Awkward]),
            ("ru", "он не знал, где Анна Каренина", vec![Middle, Never, Clause, Awkward, Never]),
            ("pl", "i to jest Jan Nowak", vec![Middle, Middle, Middle, Never]),
        ] {
            let mut phrases = Phrases::new(Some(language.parse().unwrap()));
            let words: Vec<_> = text.split(' ').collect();
            let breaks: Vec<_> = words.windows(2).map(|pair| phrases.next(pair[0], pair[1])).collect();
            assert_eq!(breaks, expected, "{text}");
        }
    }
}
