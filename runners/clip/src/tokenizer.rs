//! Captions to token ids: OpenAI's byte-pair encoding, cut to the first merges where a model asks for fewer tokens.

use std::io::{BufReader, Read};

use flate2::read::GzDecoder;
use instant_clip_tokenizer::{Token, Tokenizer as Bpe};

use crate::caption;

/// Tokens that exist before any merge: 256 bytes, 256 bytes that end a word, start and end of text.
pub const VOCABULARY_MIN: u64 = 514;

/// OpenAI's vocabulary.
pub const VOCABULARY_MAX: u64 = 49_408;

/// The 48,894 merges behind OpenAI's 49,408 tokens, first to last, after a heading: lines 1 to 48,895 of
/// `bpe_simple_vocab_16e6.txt` (MIT, OpenAI CLIP), whose gzip in the wheel `open_clip_torch` 3.3.0 has sha256
/// `924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a`:
/// `gzip -dc bpe_simple_vocab_16e6.txt.gz | head -n 48895 | gzip -9n > bpe_merges.txt.gz`.
pub(crate) const MERGES: &[u8] = include_bytes!("../bpe_merges.txt.gz");

/// A byte-pair encoder with `vocab_size` tokens; the last two are start and end of text.
pub struct Tokenizer {
    bpe: Bpe,
}

impl Tokenizer {
    /// The encoder with the first `vocab_size` - 514 merges.
    ///
    /// # Panics
    /// If `vocab_size` is not in 514 to 49,408; the job is checked for that before.
    pub fn new(vocab_size: u64) -> Tokenizer {
        assert!((VOCABULARY_MIN..=VOCABULARY_MAX).contains(&vocab_size), "a vocabulary of 514 to 49,408");
        let merges = BufReader::new(GzDecoder::new(MERGES).take(1 << 24));
        Tokenizer { bpe: Bpe::with_vocabulary(merges, vocab_size as u16).expect("the shipped merges are valid") }
    }

    /// Start of text, the [cleaned](caption::clean) caption's tokens, end of text; cut to `context_length` with the
    /// end kept, as OpenCLIP does.
    pub fn encode(&self, caption: &str, context_length: usize) -> Vec<u16> {
        let mut tokens = vec![self.bpe.start_of_text()];
        self.bpe.encode(&caption::clean(caption), &mut tokens);
        tokens.truncate(context_length - 1);
        tokens.push(self.bpe.end_of_text());
        tokens.into_iter().map(Token::to_u16).collect()
    }
}

/// Many captions, encoded once.
#[derive(Debug, Default)]
pub struct Captions {
    ids: Vec<u16>,
    starts: Vec<usize>,
}

impl Captions {
    /// Encodes captions in order.
    pub fn encode<'a>(
        tokenizer: &Tokenizer,
        captions: impl Iterator<Item = &'a str>,
        context_length: usize,
    ) -> Captions {
        let mut encoded = Captions::default();
        for caption in captions {
            encoded.starts.push(encoded.ids.len());
            encoded.ids.extend(tokenizer.encode(caption, context_length));
        }
        encoded
    }

    /// Captions.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Token ids of a caption, from start to end of text.
    pub fn get(&self, index: usize) -> &[u16] {
        let end = self.starts.get(index + 1).copied().unwrap_or(self.ids.len());
        &self.ids[self.starts[index]..end]
    }

    /// Token ids of some captions, padded with 0 to the longest of them, row after row, and each one's last place.
    pub fn gather(&self, indices: impl Iterator<Item = usize> + Clone) -> (Vec<i64>, Vec<i64>) {
        let longest = indices.clone().map(|index| self.get(index).len()).max().unwrap_or(0);
        let (mut tokens, mut ends) = (Vec::new(), Vec::new());
        for index in indices {
            let ids = self.get(index);
            tokens.extend(ids.iter().map(|id| i64::from(*id)));
            tokens.resize(tokens.len() + longest - ids.len(), 0);
            ends.push(ids.len() as i64 - 1);
        }
        (tokens, ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1,000 captions (emoji labels with tags, icon names, odd strings), each a JSON string, its ids under OpenAI's
    /// vocabulary and its ids under 4,096 tokens, without start and end, at context length 32. Made once with open_clip
    /// 3.3.0's `SimpleTokenizer`; for 4,096 its merges were cut to the first 3,582 and the vocabulary rebuilt from
    /// them.
    const GOLDEN: &str = include_str!("../tests/tokens.tsv");

    #[test]
    fn agrees_with_open_clip() {
        let (full, small) = (Tokenizer::new(VOCABULARY_MAX), Tokenizer::new(4096));
        assert_eq!(GOLDEN.lines().count(), 1000);
        for line in GOLDEN.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let caption: String = serde_json::from_str(fields[0]).expect("a JSON string");
            for (tokenizer, expected, vocabulary) in [(&full, fields[1], 49_408), (&small, fields[2], 4096)] {
                let expected: Vec<u16> = expected.split_whitespace().map(|id| id.parse().expect("an id")).collect();
                let found = tokenizer.encode(&caption, 32);
                assert_eq!((found[0], found[found.len() - 1]), (vocabulary - 2, vocabulary - 1));
                assert_eq!(found[1..found.len() - 1], expected, "{caption}");
            }
        }
    }

    #[test]
    fn captions_are_padded_to_the_longest_and_end_where_they_end() {
        let tokenizer = Tokenizer::new(514);
        let captions = Captions::encode(&tokenizer, ["ab", "abcdef", ""].into_iter(), 5);
        let (tokens, ends) = captions.gather([2, 1, 0].into_iter());
        assert_eq!(ends, [1, 4, 3]);
        assert_eq!(tokens[..5], [512, 513, 0, 0, 0]);
        assert_eq!((tokens[5], tokens[9], tokens.len()), (512, 513, 15));
    }
}
