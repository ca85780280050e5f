//! A snapshot in a file: the rows of collections, with the signed heads that they stand for. `docs/protocol/snapshot.md`
//! says what each byte means. There is no secret in it and no key but public ones, but all that the tables hold.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use entgldb_replica::id::{Collection, sha256};
use entgldb_replica::limits::{PAGE_BYTES_TARGET, PAGE_ENTRIES_TARGET, VECTOR_LOGS_MAX};
use entgldb_replica::store::ScanLimits;
use entgldb_replica::wire::{Chunk, Message, Part};
use entgldb_sqlite::inspect::Inspector;
use entgldb_sqlite::{OpenError, SqliteFailed};
use serde::{Deserialize, Serialize};

use crate::clocks::wall_ms;
use crate::data_dir::{create_fresh, sync_folder};

const MAGIC: &[u8; 17] = b"EntglDb snapshot\n";
const VERSION: u32 = 1;
/// Longest part, in bytes: a document of the largest size with its state.
const PART_BYTES_MAX: usize = 64 << 20;
/// How long a change that is not captured yet is waited for.
const CAPTURE_WAIT: (Duration, u32) = (Duration::from_millis(100), 100);

const END: u8 = 0;
const HEADER: u8 = 1;
const CHUNK: u8 = 2;

/// How far an export or import has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Exported {
    /// Rows done, those of deleted documents too.
    pub rows: u64,
    /// About how many there are.
    pub total: u64,
}

/// A snapshot was not written. There is no file, or the one that was there is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortableError {
    /// The database can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No node syncs any table of it.
    #[error("no node has synced this database yet, so there is nothing to export")]
    NeverSynced,
    /// A row has a change that no entry stands for.
    #[error(
        "a change of {collection:?} is not captured yet (or a column was dropped): start the node once, then export again"
    )]
    Uncaptured {
        /// The table.
        collection: String,
    },
    /// The database can't be read.
    #[error("the database: {0}")]
    Store(#[from] SqliteFailed),
    /// The file can't be written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is wrong with a snapshot's file. Nothing of it was taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Io(#[from] io::Error),
    /// It is another kind of file.
    #[error("it is no snapshot of EntglDb")]
    NotASnapshot,
    /// A later version wrote it.
    #[error("it has format {found}; this version knows {VERSION}: use the newer version")]
    Newer {
        /// Its format.
        found: u32,
    },
    /// It ends too early.
    #[error("it ends at byte {at}, in the middle: it was cut")]
    Truncated {
        /// Where.
        at: u64,
    },
    /// It is not as it was written.
    #[error("the part at byte {at} is not as it was written: {what}")]
    Damaged {
        /// Where the part begins.
        at: u64,
        /// What is wrong with it.
        what: String,
    },
}

/// The first part of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) created_ms: u64,
    pub(crate) collections: Vec<HeaderCollection>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct HeaderCollection {
    pub(crate) name: String,
    /// About how many there are: it was counted before they were read.
    pub(crate) rows: u64,
}

/// Writes the rows of all tables that a database's node syncs to a file. The node may be running, in this process or
/// another one, and programs may write; each piece is as it is at its moment, and rows that are written meanwhile may be in
/// or not. The file is written beside its place and then renamed; one that is there is replaced.
///
/// # Errors
/// When the database can't be read, or the file can't be written.
pub fn export_snapshot(
    database: &Path,
    file: &Path,
    on_progress: &mut dyn FnMut(Exported),
) -> Result<Exported, PortableError> {
    let mut inspector = Inspector::open(database)?.ok_or(PortableError::NeverSynced)?;
    let collections = inspector.watched_tables()?;
    if collections.is_empty() {
        return Err(PortableError::NeverSynced);
    }
    let io = |source| PortableError::Io { path: file.to_owned(), source };
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| io(io::Error::other("the system gives no random bytes")))?;
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{:016x}.part", u64::from_be_bytes(random)));
    let part = PathBuf::from(name);
    let mut writer = Writer::create(&part).map_err(io)?;
    let written = (|| {
        let mut progress = Exported::default();
        let mut header = Header { created_ms: wall_ms(), collections: Vec::new() };
        for collection in &collections {
            let rows = inspector.rows(collection)?;
            progress.total += rows;
            header.collections.push(HeaderCollection { name: collection.to_string(), rows });
        }
        let header = serde_json::to_vec(&header).expect("names and numbers are JSON");
        writer.part(HEADER, &header).map_err(io)?;
        for collection in &collections {
            write_heads(&mut inspector, &mut writer, collection)?.map_err(io)?;
            write_rows(&mut inspector, (&mut writer, file), collection, &mut progress, on_progress)?;
            write_heads(&mut inspector, &mut writer, collection)?.map_err(io)?;
        }
        writer.finish().map_err(io)?;
        std::fs::rename(&part, file).and_then(|()| sync_folder(file)).map_err(io)?;
        Ok(progress)
    })();
    if written.is_err() {
        // What is half written is of no use to anybody.
        let _ = std::fs::remove_file(&part);
    }
    written
}

fn write_heads(
    inspector: &mut Inspector,
    writer: &mut Writer,
    collection: &Collection,
) -> Result<io::Result<()>, PortableError> {
    let (heads, ahead) = (inspector.heads(collection)?, inspector.is_joining()?);
    let pieces: Vec<&[_]> =
        if heads.is_empty() { vec![&[]] } else { heads.chunks(VECTOR_LOGS_MAX).collect() };
    let last = pieces.len() - 1;
    let write = |(number, heads): (usize, &&[_])| {
        writer.chunk(Chunk {
            collection: collection.clone(),
            part: Part::Heads(heads.to_vec()),
            last: number == last,
            refused: String::new(),
            ahead,
        })
    };
    Ok(pieces.iter().enumerate().try_for_each(write))
}

fn write_rows(
    inspector: &mut Inspector,
    (writer, file): (&mut Writer, &Path),
    collection: &Collection,
    progress: &mut Exported,
    on_progress: &mut dyn FnMut(Exported),
) -> Result<(), PortableError> {
    let limits = ScanLimits { rows: PAGE_ENTRIES_TARGET, bytes: PAGE_BYTES_TARGET };
    let (mut after, mut waits) = (None, 0);
    loop {
        let scan = inspector.scan(collection, after.as_ref(), &limits)?;
        if scan.moved && scan.documents.is_empty() {
            waits += 1;
            if waits > CAPTURE_WAIT.1 {
                return Err(PortableError::Uncaptured { collection: collection.to_string() });
            }
            std::thread::sleep(CAPTURE_WAIT.0);
            continue;
        }
        waits = 0;
        progress.rows += scan.documents.len() as u64;
        progress.total = progress.total.max(progress.rows);
        after = scan.documents.last().map(|document| document.key.clone()).or(after);
        let last = !scan.more && !scan.moved;
        let part = Part::Rows(scan.documents);
        let ahead = inspector.is_joining()?;
        let refused = String::new();
        let chunk = Chunk { collection: collection.clone(), part, last, refused, ahead };
        writer.chunk(chunk).map_err(|source| PortableError::Io { path: file.to_owned(), source })?;
        on_progress(*progress);
        if last {
            return Ok(());
        }
    }
}

/// Writes parts.
struct Writer {
    file: BufWriter<File>,
    parts: u64,
    sum: [u8; 32],
}

impl Writer {
    fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::new(create_fresh(path)?);
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&VERSION.to_be_bytes());
        file.write_all(&head)?;
        Ok(Self { file, parts: 0, sum: sha256(&head) })
    }

    fn chunk(&mut self, chunk: Chunk) -> io::Result<()> {
        self.part(CHUNK, &Message::Chunk(chunk).encode().1)
    }

    fn part(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len()).ok().filter(|length| *length as usize <= PART_BYTES_MAX);
        let Some(length) = length else {
            return Err(io::Error::other(format!("a part of {} bytes is too long", body.len())));
        };
        let mut head = vec![kind];
        head.extend_from_slice(&length.to_be_bytes());
        let sum = sum_of(&head, body);
        self.file.write_all(&head)?;
        self.file.write_all(body)?;
        self.file.write_all(&sum)?;
        self.parts += 1;
        self.sum = sum_of(&self.sum, &sum);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let mut body = self.parts.to_be_bytes().to_vec();
        body.extend_from_slice(&self.sum);
        self.part(END, &body)?;
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

fn sum_of(before: &[u8], bytes: &[u8]) -> [u8; 32] {
    let mut all = Vec::with_capacity(before.len() + bytes.len());
    all.extend_from_slice(before);
    all.extend_from_slice(bytes);
    sha256(&all)
}

/// Reads parts, each checked by itself; whoever reads to the end has checked the whole.
pub(crate) struct Reader {
    file: BufReader<File>,
    at: u64,
    parts: u64,
    sum: [u8; 32],
}

/// A part of a file.
pub(crate) enum FilePart {
    Header(Header),
    Chunk(Chunk),
    /// The file ends here, as it was written.
    End,
}

impl Reader {
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let mut file = BufReader::new(File::open(path)?);
        let mut head = Vec::new();
        file.by_ref().take(MAGIC.len() as u64 + 4).read_to_end(&mut head)?;
        let Some((magic, version)) = head.split_at_checked(MAGIC.len()).filter(|(_, rest)| rest.len() == 4)
        else {
            return Err(FileError::NotASnapshot);
        };
        if magic != MAGIC {
            return Err(FileError::NotASnapshot);
        }
        let found = u32::from_be_bytes(version.try_into().expect("four bytes"));
        if found != VERSION {
            return Err(FileError::Newer { found });
        }
        Ok(Self { file, at: head.len() as u64, parts: 0, sum: sha256(&head) })
    }

    /// Where the next part begins.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    fn bytes(&mut self, count: usize) -> Result<Vec<u8>, FileError> {
        let mut bytes = Vec::new();
        self.file.by_ref().take(count as u64).read_to_end(&mut bytes)?;
        let is_whole = bytes.len() == count;
        self.at += bytes.len() as u64;
        if is_whole { Ok(bytes) } else { Err(FileError::Truncated { at: self.at }) }
    }

    /// The next part.
    pub(crate) fn next(&mut self) -> Result<FilePart, FileError> {
        let at = self.at;
        let damaged = |what: &str| FileError::Damaged { at, what: what.to_owned() };
        let head = self.bytes(5)?;
        let length = u32::from_be_bytes(head[1..].try_into().expect("four bytes")) as usize;
        if length > PART_BYTES_MAX {
            return Err(damaged("its length is impossible"));
        }
        let body = self.bytes(length)?;
        let sum = self.bytes(32)?;
        if sum_of(&head, &body)[..] != sum[..] {
            return Err(damaged("its checksum is another one"));
        }
        let part = match head[0] {
            HEADER => FilePart::Header(
                serde_json::from_slice(&body).map_err(|error| damaged(&format!("the header: {error}")))?,
            ),
            CHUNK => match Message::decode(Message::CHUNK, Bytes::from(body)) {
                Ok(Some(Message::Chunk(chunk))) => FilePart::Chunk(chunk),
                Ok(_) => return Err(damaged("it is no piece of a snapshot")),
                Err(error) => return Err(damaged(&error.to_string())),
            },
            END => {
                let expected = [&self.parts.to_be_bytes()[..], &self.sum].concat();
                if body != expected {
                    return Err(damaged(
                        "the checksum of the whole is another one: parts were left out or moved",
                    ));
                }
                if self.file.read(&mut [0])? > 0 {
                    return Err(damaged("there is more behind the end"));
                }
                return Ok(FilePart::End);
            }
            _ => return Err(damaged("its kind is not known")),
        };
        self.parts += 1;
        self.sum = sum_of(&self.sum, &sum);
        Ok(part)
    }
}
