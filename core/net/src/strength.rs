//! Refuses passphrases that the first minutes of guessing would find.
//!
//! Guessing programs try words, names, dates, keyboard walks and repetitions long before random characters. So these
//! are folded to one mark each, and what is left must still be long. It is a coarse filter and no proof of strength: a
//! generated secret needs none.

use zeroize::Zeroizing;

/// Characters that must be left after folding.
const FOLDED_CHARS_MIN: usize = 10;
/// Characters that must be different.
const DISTINCT_CHARS_MIN: usize = 6;
/// A run of at least so many equal, rising or falling characters is folded.
const RUN_CHARS_MIN: usize = 3;
/// Rows of usual keyboards, walked in either direction.
const KEYBOARD_ROWS: [&str; 6] =
    ["qwertyuiop", "qwertzuiop", "azertyuiop", "asdfghjkl", "zxcvbnm", "yxcvbnm"];
/// Stands for something folded.
const MARK: char = '\u{1}';

/// The heads of published lists of leaked passwords, and what people use for a network at work. Longer ones first where
/// one begins with another.
const COMMON: &str = "correcthorsebatterystaple administrator development passphrase passwort password production \
    database entgldb cluster default welcome willkommen letmein changeme geheimnis geheim secret example testing test \
    admin root user login master access monkey dragon football baseball superman batman sunshine princess iloveyou \
    shadow michael jennifer charlie summer winter spring autumn sommer herbst january february august september october \
    november december monday friday company office server network starwars computer internet hello qwerty";

/// Whether a passphrase is easy to guess.
pub(crate) fn is_weak(passphrase: &str) -> bool {
    let lower = Zeroizing::new(passphrase.to_lowercase());
    let plain: Zeroizing<Vec<char>> = Zeroizing::new(lower.chars().filter(|c| !c.is_whitespace()).collect());
    let mut distinct = plain.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < DISTINCT_CHARS_MIN || is_repetition(&plain) {
        return true;
    }
    let mut folded: Zeroizing<String> = Zeroizing::new(plain.iter().copied().map(undisguise).collect());
    for word in COMMON.split(' ').filter(|word| !word.is_empty()) {
        folded = Zeroizing::new(folded.replace(word, &MARK.to_string()));
    }
    let folded: Zeroizing<Vec<char>> = Zeroizing::new(folded.chars().collect());
    fold_runs(&folded) < FOLDED_CHARS_MIN
}

/// `p4$$w0rd` is tried as early as `password`.
fn undisguise(c: char) -> char {
    match c {
        '0' => 'o',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '!' => 'i',
        other => other,
    }
}

/// Whether it is a shorter text again and again.
fn is_repetition(text: &[char]) -> bool {
    (1..=text.len() / 2).any(|period| text.iter().zip(&text[period..]).all(|(a, b)| a == b))
}

/// How long the text is when every run counts as one.
fn fold_runs(text: &[char]) -> usize {
    let mut at = 0;
    let mut folded = 0;
    while at < text.len() {
        let run = run_length(&text[at..]);
        at += if run >= RUN_CHARS_MIN { run } else { 1 };
        folded += 1;
    }
    folded
}

/// How many characters from the first on go on in the same step.
fn run_length(text: &[char]) -> usize {
    let Some(step) = text.first().zip(text.get(1)).and_then(|(a, b)| step(*a, *b)) else { return 1 };
    1 + text.windows(2).take_while(|pair| self::step(pair[0], pair[1]) == Some(step)).count()
}

/// Equal (0), next or previous in the alphabet, or beside each other on a keyboard (the row, and the direction).
fn step(a: char, b: char) -> Option<(usize, i32)> {
    let apart = b as i32 - a as i32;
    if (-1..=1).contains(&apart) {
        return Some((0, apart));
    }
    KEYBOARD_ROWS.iter().enumerate().find_map(|(row, keys)| {
        let (a, b) = (keys.find(a)?, keys.find(b)?);
        match b as i32 - a as i32 {
            apart @ (-1 | 1) => Some((row + 1, apart)),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_guessed_first_is_refused_however_it_is_disguised() {
        for weak in [
            "password1234",
            "P4$$w0rd-2024!",
            "aaaaaaaaaaaaaaaa",
            "abcabcabcabcabc",
            "123456789012",
            "qwertyuiop123",
            "asdfghjklasd",
            "correct horse battery staple",
            "Sommer2024!!",
            "LetMeInLetMeIn1",
            "admin admin server",
            "entgldb cluster 1",
            "abababababa1",
            "zyxwvutsrqponm",
        ] {
            assert!(is_weak(weak), "{weak:?} should be refused");
        }
    }

    #[test]
    fn random_words_and_random_characters_pass() {
        for strong in [
            "marble otter window fifteen",
            "x7Kq-92mf-Lt0p-bbWz",
            "Zug nach Norden fährt ohne Licht",
            "k8#Lw!pQ2$vZ9r",
        ] {
            assert!(!is_weak(strong), "{strong:?} should pass");
        }
    }
}
