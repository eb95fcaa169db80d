//! `sweep-pool pack images`, `pack csv` and `benchmark`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use pool::DatasetType;
use pool::pack::{self, Columns, Packed, Target};

/// What to pack.
#[derive(Subcommand)]
pub(crate) enum Pack {
    /// Pack a folder with a folder of images for each class, numbered as torchvision's `ImageFolder` does.
    Images {
        /// The folder: CLASS/IMAGE.jpg, .png or .webp.
        folder: PathBuf,
        #[command(flatten)]
        to: To,
        /// Names to use in place of the folders', in their order, one a line.
        #[arg(long)]
        class_names: Option<PathBuf>,
        /// Prompt templates, one a line, `{c}` for the class [default: `a photo of a {c}.`]
        #[arg(long)]
        templates: Option<PathBuf>,
    },
    /// Pack the images that a table lists with their captions, as open_clip's `--dataset-type csv` reads it.
    Csv {
        /// The table; relative paths in it start from the current folder.
        table: PathBuf,
        #[command(flatten)]
        to: To,
        /// Between columns; default: a tab.
        #[arg(long, default_value = "\t", hide_default_value = true)]
        csv_separator: char,
        /// Column of paths.
        #[arg(long, default_value = "filepath")]
        csv_img_key: String,
        /// Column of captions.
        #[arg(long, default_value = "title")]
        csv_caption_key: String,
        /// Take rows of one path as one image with several captions, to measure retrieval on.
        #[arg(long)]
        retrieval: bool,
    },
}

/// Where to.
#[derive(Args)]
pub(crate) struct To {
    /// Folder of the data set, which gets a folder for the split.
    #[arg(long)]
    out: PathBuf,
    /// Name of the split.
    #[arg(long, default_value = "test")]
    split: String,
}

/// How to lay a pool out.
#[derive(Args)]
pub(crate) struct Benchmark {
    /// Folder of shards.
    pool: PathBuf,
    #[command(flatten)]
    to: To,
    /// What CLIP_benchmark is to measure on it.
    #[arg(long = "type", value_enum, default_value = "classification")]
    kind: Type,
}

/// `dataset_type.txt`.
#[derive(Clone, Copy, ValueEnum)]
enum Type {
    Classification,
    Retrieval,
    Multilabel,
}

pub(crate) fn pack(from: Pack) -> Result<(), pack::Error> {
    let Packed { folder, images, other_formats } = match from {
        Pack::Images { folder, to, class_names, templates } => {
            pack::pack_folder(&folder, &Target { out: to.out, split: to.split, class_names, templates })?
        }
        Pack::Csv { table, to, csv_separator, csv_img_key, csv_caption_key, retrieval } => {
            let columns = Columns { separator: csv_separator, image: csv_img_key, caption: csv_caption_key };
            let target = Target { out: to.out, split: to.split, class_names: None, templates: None };
            pack::pack_table(&table, &columns, retrieval, &PathBuf::new(), &target)?
        }
    };
    println!("{}: {images} images", folder.display());
    for (extension, count) in other_formats {
        println!("not packed: {count} ({extension}: pools hold JPEG, PNG and WebP)");
    }
    Ok(())
}

pub(crate) fn benchmark(Benchmark { pool, to, kind }: &Benchmark) -> Result<(), pack::Error> {
    let kind = match kind {
        Type::Classification => DatasetType::Pairs,
        Type::Retrieval => DatasetType::Retrieval,
        Type::Multilabel => DatasetType::Multilabel,
    };
    let folder = pack::link(pool, &to.out, &to.split, kind)?;
    println!("{}", folder.display());
    Ok(())
}
