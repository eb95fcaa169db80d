//! Captions to token ids: OpenAI's byte-pair encoding, cut to the first merges where a model asks for fewer tokens, or
//! a tokenizer file of Hugging Face.

mod file;

use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::GzDecoder;
use instant_clip_tokenizer::{Token, Tokenizer as Bpe};
use protocol::{Clean, TextConfig, TextPool, VOCABULARY_MAX, VOCABULARY_MIN};

use crate::caption;
use file::TokenizerFile;
pub use file::{CONFIG_FILE as TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, TokenizerError};

/// The 48,894 merges behind OpenAI's 49,408 tokens, first to last, after a heading: lines 1 to 48,895 of
/// `bpe_simple_vocab_16e6.txt` (MIT, OpenAI CLIP), whose gzip in the wheel `open_clip_torch` 3.3.0 has sha256
/// `924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a`:
/// `gzip -dc bpe_simple_vocab_16e6.txt.gz | head -n 48895 | gzip -9n > bpe_merges.txt.gz`.
pub(crate) const MERGES: &[u8] = include_bytes!("../../bpe_merges.txt.gz");

/// A text tower's way from captions to token ids.
pub struct Tokenizer {
    encoder: Encoder,
    clean: fn(&str) -> String,
    layout: Layout,
}

enum Encoder {
    /// Its last two tokens are start and end of text.
    Pairs(Bpe),
    File(Box<TokenizerFile>),
}

/// How token ids lie in a batch, and which of a row is pooled.
#[derive(Debug, Clone, Copy, Default)]
struct Layout {
    context_length: usize,
    /// Behind a caption's tokens.
    padding: u32,
    /// Rows are of the context length, since the tower reads padding.
    whole: bool,
    pool: TextPool,
    /// What [`TextPool::Eos`] seeks.
    eos: u32,
}

impl Tokenizer {
    /// The tokenizer of a text tower; a file is read from `base_dir`.
    ///
    /// # Panics
    /// If the vocabulary is not what [`protocol::ModelConfig::check_trained_by_clip`] asks for.
    pub fn new(text: &TextConfig, base_dir: &Path) -> Result<Tokenizer, TokenizerError> {
        let (encoder, clean, padding) = match &text.hf_tokenizer_name {
            Some(name) => {
                let file = TokenizerFile::read(&base_dir.join(name), text)?;
                let padding = file.padding();
                (Encoder::File(Box::new(file)), Clean::Whitespace, padding)
            }
            None => (Encoder::Pairs(pairs(text.vocab_size)), Clean::Lower, 0),
        };
        let layout = Layout {
            context_length: text.context_length as usize,
            padding,
            whole: text.no_causal_mask || text.embed_cls || text.pool_type == TextPool::Last,
            pool: text.pool_type,
            eos: text.eos_id as u32,
        };
        let clean = caption::cleaning(text.tokenizer_kwargs.clean.unwrap_or(clean));
        Ok(Tokenizer { encoder, clean, layout })
    }

    /// What open_clip needs of a tokenizer file, by name in a folder.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        match &self.encoder {
            Encoder::Pairs(_) => Vec::new(),
            Encoder::File(file) => file.files(),
        }
    }

    /// Ids of the cleaned caption, start and end included, cut to `context_length` with the end kept. Fails where a
    /// tokenizer file has no token for a part of it, nor one for what is unknown.
    pub fn encode(&self, caption: &str, context_length: usize) -> Result<Vec<u32>, TokenizerError> {
        let caption = (self.clean)(caption);
        match &self.encoder {
            Encoder::Pairs(bpe) => {
                let mut tokens = vec![bpe.start_of_text()];
                bpe.encode(&caption, &mut tokens);
                tokens.truncate(context_length - 1);
                tokens.push(bpe.end_of_text());
                Ok(tokens.into_iter().map(|token| u32::from(Token::to_u16(token))).collect())
            }
            Encoder::File(file) => file.encode(&caption),
        }
    }
}

/// The encoder with the first `vocabulary` - 514 merges.
fn pairs(vocabulary: u64) -> Bpe {
    assert!((VOCABULARY_MIN..=VOCABULARY_MAX).contains(&vocabulary), "a vocabulary of 514 to 49,408");
    let merges = BufReader::new(GzDecoder::new(MERGES).take(1 << 24));
    Bpe::with_vocabulary(merges, vocabulary as u16).expect("the shipped merges are valid")
}

impl Layout {
    /// Place of the token that is pooled, in the row that padding makes of `ids`.
    fn pooled(&self, ids: &[u32]) -> usize {
        let padded = ids.len() < self.context_length;
        let found = match self.pool {
            TextPool::First => Some(0),
            TextPool::Last => Some(self.context_length - 1),
            TextPool::Argmax => {
                let highest = ids.iter().copied().max().unwrap_or_default();
                if padded && self.padding > highest { None } else { ids.iter().position(|id| *id == highest) }
            }
            TextPool::Eos => ids.iter().position(|id| *id == self.eos),
        };
        match found {
            Some(place) => place,
            None if padded && (self.pool == TextPool::Argmax || self.padding == self.eos) => ids.len(),
            None => 0,
        }
    }
}

/// Many captions, encoded once.
#[derive(Debug, Default)]
pub struct Captions {
    ids: Vec<u32>,
    starts: Vec<usize>,
    layout: Layout,
}

impl Captions {
    /// Encodes captions in order.
    pub fn encode<'a>(
        tokenizer: &Tokenizer,
        captions: impl Iterator<Item = &'a str>,
        context_length: usize,
    ) -> Result<Captions, TokenizerError> {
        let mut encoded = Captions { layout: tokenizer.layout, ..Captions::default() };
        for caption in captions {
            encoded.starts.push(encoded.ids.len());
            encoded.ids.extend(tokenizer.encode(caption, context_length)?);
        }
        Ok(encoded)
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
    pub fn get(&self, index: usize) -> &[u32] {
        let end = self.starts.get(index + 1).copied().unwrap_or(self.ids.len());
        &self.ids[self.starts[index]..end]
    }

    /// Token ids of some captions, row after row, and each one's place of the pooled token. Rows end behind the last of
    /// those places, or where the context does if the tower reads all of it.
    pub fn gather(&self, indices: impl Iterator<Item = usize> + Clone) -> (Vec<i64>, Vec<i64>) {
        let ends: Vec<usize> = indices.clone().map(|index| self.layout.pooled(self.get(index))).collect();
        let longest = ends.iter().max().map_or(0, |end| end + 1);
        let length = if self.layout.whole { self.layout.context_length } else { longest };
        let mut tokens = Vec::with_capacity(ends.len() * length);
        for index in indices {
            let row = self.get(index).iter().copied().chain(std::iter::repeat(self.layout.padding));
            tokens.extend(row.take(length).map(i64::from));
        }
        (tokens, ends.into_iter().map(|end| end as i64).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1,000 captions (emoji labels with tags, icon names, odd strings), each a JSON string, its ids under OpenAI's
    /// vocabulary and its ids under 4,096 tokens, without start and end, at context length 32. Made once with open_clip
    /// 3.3.0's `SimpleTokenizer`; for 4,096 its merges were cut to the first 3,582 and the vocabulary rebuilt from
    /// them.
    const GOLDEN: &str = include_str!("../../tests/tokens.tsv");

    #[test]
    fn agrees_with_open_clip() {
        let (full, small) = (tokenizer(&of(VOCABULARY_MAX)), tokenizer(&of(4096)));
        assert_eq!(GOLDEN.lines().count(), 1000);
        for line in GOLDEN.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let caption: String = serde_json::from_str(fields[0]).expect("a JSON string");
            for (tokenizer, expected, vocabulary) in [(&full, fields[1], 49_408), (&small, fields[2], 4096)] {
                let expected: Vec<u32> = expected.split_whitespace().map(|id| id.parse().expect("an id")).collect();
                let found = tokenizer.encode(&caption, 32).expect("any text has tokens");
                assert_eq!((found[0], found[found.len() - 1]), (vocabulary - 2, vocabulary - 1));
                assert_eq!(found[1..found.len() - 1], expected, "{caption}");
            }
        }
    }

    #[test]
    fn captions_are_padded_to_the_longest_and_end_where_they_end() {
        let captions = encoded(&TextConfig { context_length: 5, ..of(514) });
        let (tokens, ends) = captions.gather([2, 1, 0].into_iter());
        assert_eq!(ends, [1, 4, 3]);
        assert_eq!(tokens[..5], [512, 513, 0, 0, 0]);
        assert_eq!((tokens[5], tokens[9], tokens.len()), (512, 513, 15));
    }
    fn of(vocab_size: u64) -> TextConfig {
        TextConfig { vocab_size, ..TextConfig::default() }
    }

    fn tokenizer(text: &TextConfig) -> Tokenizer {
        Tokenizer::new(text, Path::new("")).expect("OpenAI's encoding")
    }

    fn encoded(text: &TextConfig) -> Captions {
        Captions::encode(&tokenizer(text), ["ab", "abcdef", ""].into_iter(), text.context_length as usize)
            .expect("any text has tokens")
    }

    #[test]
    fn rows_hold_what_the_tower_reads_and_pooling_has_its_place() {
        let text = |pool_type, eos_id, no_causal_mask| TextConfig {
            context_length: 6,
            pool_type,
            eos_id,
            no_causal_mask,
            ..of(514)
        };
        let gathered = |text: &TextConfig| {
            let (tokens, ends) = encoded(text).gather(0..3);
            (tokens.len() / 3, ends)
        };
        assert_eq!(gathered(&text(TextPool::Argmax, 2, false)), (6, vec![3, 5, 1]));
        assert_eq!(gathered(&text(TextPool::Argmax, 2, true)), (6, vec![3, 5, 1]));
        assert_eq!(gathered(&text(TextPool::First, 2, false)), (1, vec![0, 0, 0]));
        assert_eq!(gathered(&text(TextPool::Last, 2, false)), (6, vec![5, 5, 5]));
        // "a" is token 64, the "b" that ends a word 321; padding is 0.
        assert_eq!(gathered(&text(TextPool::Eos, 64, false)), (2, vec![1, 1, 0]));
        assert_eq!(gathered(&text(TextPool::Eos, 0, false)), (5, vec![4, 0, 2]));
    }
}
