//! Writes the seeds of all targets anew: `cargo run --manifest-path fuzz/Cargo.toml --example seeds`. Documents and entries
//! come from the golden vectors in `docs/protocol/`. The same vectors and the same engine give the same files.

use std::error::Error;
use std::path::Path;
use std::{fs, io};

use bytes::Bytes;
use entgldb_fuzz::net::handshake_payload::{genuine_hello, genuine_payload};
use entgldb_fuzz::replica::session;
use entgldb_net::Codec;
use entgldb_net::fuzzing::{compress, frame};
use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::entry::{AuthorKey, Chain, Entry, Op, SignedHead};
use entgldb_replica::fingerprint::Fingerprint;
use entgldb_replica::id::{Collection, Incarnation, Key, LogId, NodeId};
use entgldb_replica::version::{Hash, Head, Seq};
use entgldb_replica::wire::{Ack, Code, Digest, Message, Page, Run, RunResult, check_of};
use serde_json::Value;

/// A generated secret that no cluster has.
const SECRET: &str = "entgldb1-rectlqpq-qcl4u5ba-iqkjdej6-ktmqdgbh-eygkgdkp-hmboyh3i-an2iwtyi";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    match fs::remove_dir_all(&root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let seeds = Seeds { root: &root };
    let messages = messages()?;
    seeds.frames(&messages)?;
    seeds.wire(&messages)?;
    seeds.documents()?;
    seeds.names()?;
    for (name, script) in session::seeds() {
        seeds.write("session", name, &script)?;
    }
    for (name, choices) in entry_choices() {
        seeds.write("entry", name, &choices)?;
    }
    Ok(())
}

struct Seeds<'a> {
    root: &'a Path,
}

impl Seeds<'_> {
    fn write(&self, target: &str, name: &str, data: &[u8]) -> io::Result<()> {
        let folder = self.root.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), data)
    }

    /// All messages as one stream, plain and compressed.
    fn frames(&self, messages: &[(&str, Message)]) -> Outcome<()> {
        for (name, codec) in [("plain", None), ("brotli", Some(Codec::Brotli)), ("zstd", Some(Codec::Zstd))] {
            let mut stream = vec![2, 3, 100];
            for (_, message) in messages {
                let (kind, body) = message.encode();
                let shrunk = codec.and_then(|codec| Some((codec, compress(codec, &body)?)));
                match shrunk {
                    Some((codec, shrunk)) => stream.extend(frame(kind, Some(codec), body.len(), &shrunk)),
                    None => stream.extend(frame(kind, None, body.len(), &body)),
                }
            }
            self.write("frame", name, &stream)?;
        }
        self.write(
            "frame",
            "alive-and-close",
            &[vec![1, 0, 0], frame(1, None, 0, b""), frame(2, None, 4, b"done")].concat(),
        )?;
        let text = br#"{"id":1,"name":"Espresso","price":1.5}"#.repeat(12);
        for (bit, name, codec) in [(1, "brotli", Codec::Brotli), (0, "zstd", Codec::Zstd)] {
            let body = compress(codec, &text).ok_or("it gets smaller")?;
            let length = u16::try_from(text.len())?.to_le_bytes();
            let header = |flags: u8| [flags | bit, length[0], length[1], 9, 0, 1];
            self.write("decompress", name, &[&header(0), &body[..]].concat())?;
            self.write("decompress", &format!("{name}-damaged"), &[&header(2), &text[..]].concat())?;
            let zeros = compress(codec, &vec![0; 1 << 20]).ok_or("it gets smaller")?;
            self.write("decompress", &format!("{name}-bomb"), &[&header(4), &zeros[..]].concat())?;
        }
        Ok(())
    }

    fn wire(&self, messages: &[(&str, Message)]) -> Outcome<()> {
        for (name, message) in messages {
            let (kind, body) = message.encode();
            self.write("wire", name, &[&[u8::try_from(kind)?], &body[..]].concat())?;
        }
        Ok(())
    }

    fn documents(&self) -> Outcome<()> {
        let vectors: Value = serde_json::from_str(include_str!("../../docs/protocol/mapping-vectors.json"))?;
        for (number, case) in vectors["cases"].as_array().ok_or("cases")?.iter().enumerate() {
            let (key, content) = (text(&case["key"])?, text(&case["content"])?);
            let name = format!("vector-{number:02}");
            self.write("json", &name, content.as_bytes())?;
            let header = [u8::try_from(number % 6)?, u8::try_from(key.len()).unwrap_or(0)];
            self.write("mapping", &name, &[&header, key.as_bytes(), content.as_bytes()].concat())?;
        }
        let odd = r#"{"a":[1,{"b":{}},[]],"é\u00e9\ud83d\ude00":"\"\\\/\b\f\n\r\t","n":-1.5E+300,"t":true, "f":false}"#;
        self.write("json", "every-token", odd.as_bytes())?;
        let row = r#"{"a":"x","b":1.5,"c":{"$blob":"AQ=="},"d":"7","e":[1, 2],"id":5,"unknown":{"k":null}}"#;
        self.write("mapping", "every-kind", &[b"\0\x015", row.as_bytes()].concat())?;
        Ok(())
    }

    fn names(&self) -> Outcome<()> {
        self.write("secret", "secret", SECRET.as_bytes())?;
        self.write(
            "secret",
            "secret-typed",
            SECRET.to_uppercase().replace("ENTGLDB1-", "entgldb1-  ").as_bytes(),
        )?;
        self.write("secret", "node-id", AuthorKey::from_seed(&[1; 32]).node_id().to_string().as_bytes())?;
        self.write("handshake_payload", "genuine", &[&[1], &genuine_payload()[..]].concat())?;
        self.write("handshake_payload", "hello", &[&[3], &genuine_hello()[..]].concat())?;
        let mut config = entgldb::Config::new("shop.db", "cluster.secret");
        self.write(
            "config",
            "shortest",
            br#"{"database":"shop.db","secret_file":"s","watch":["products"]}"#,
        )?;
        config.watch = vec!["products".into(), "orders".into()];
        config.listen = Some("[::]:7700".into());
        config.peers = vec!["till-2.local:7700".into(), "[fe80::1]:7700".into()];
        config.allow = Some(vec![AuthorKey::from_seed(&[1; 32]).node_id().to_string()]);
        config.name = Some("till".into());
        config.data_dir = Some("data".into());
        self.write("config", "every-field", serde_json::to_string(&config)?.as_bytes())?;
        Ok(())
    }
}

fn text(value: &Value) -> Outcome<&str> {
    Ok(value.as_str().ok_or("a text is missing")?)
}

fn number(value: &Value) -> Outcome<u64> {
    match value.as_u64() {
        Some(number) => Ok(number),
        None => Ok(text(value)?.parse()?),
    }
}

fn bytes<const N: usize>(value: &Value) -> Outcome<[u8; N]> {
    let digits = text(value)?;
    let byte = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    Ok(bytes.and_then(|bytes| bytes.try_into().ok()).ok_or("not so many bytes in hexadecimal")?)
}

/// One message of each type; the page holds the golden entries.
fn messages() -> Outcome<Vec<(&'static str, Message)>> {
    let vectors: Value = serde_json::from_str(include_str!("../../docs/protocol/vectors.json"))?;
    let key = AuthorKey::from_seed(&bytes(&vectors["author_seed"])?);
    let collection = Collection::new(text(&vectors["collection"])?)?;
    let incarnation = Incarnation(u64::from_str_radix(text(&vectors["incarnation"])?, 16)?);
    let log = LogId { author: key.node_id(), incarnation, collection: collection.clone() };
    let mut chain = Chain::resume(log.clone(), Head::default(), Hlc::default());
    let mut entries = Vec::new();
    for listed in vectors["entries"].as_array().ok_or("entries")? {
        let replaces = match &listed["replaces"] {
            Value::Null => None,
            stamp => Some(Stamp { hlc: Hlc(number(&stamp["hlc"])?), node: NodeId(bytes(&stamp["node"])?) }),
        };
        let entry = Entry {
            seq: Seq(number(&listed["seq"])?),
            hlc: Hlc(number(&listed["hlc"])?),
            replaces,
            op: Op::from_number(number(&listed["op"])?).ok_or("an operation")?,
            key: Key::new(text(&listed["key"])?)?,
            payload: Bytes::from(text(&listed["payload"])?.to_owned()),
        };
        let linked = chain.link(entry.clone())?;
        if linked.hash() != Hash(bytes(&listed["hash"])?) {
            return Err("an entry does not have its golden hash".into());
        }
        entries.push((entry, check_of(&linked.hash())));
    }
    let hlc = entries.last().ok_or("entries")?.0.hlc;
    let signed = SignedHead { head: chain.head(), hlc, signature: bytes(&vectors["head_signature"])? };
    let run =
        Run { log: log.clone(), public_key: key.public_key(), previous: Hash::default(), entries, signed };
    let fingerprint = Fingerprint::from_bytes(bytes(&vectors["row_fingerprint"])?);
    let wall = WallMillis(1_800_000_000_000);
    let result = |code, detail: &str| RunResult { code, seq: Seq(4), detail: detail.to_owned() };
    let results = vec![result(Code::Taken, ""), result(Code::Bad, "damaged")];
    Ok(vec![
        ("hello", session::hello(vec![collection], wall)),
        ("digest", Message::Digest(Digest { vector: fingerprint, rows: fingerprint, wall })),
        ("vector", session::vector(vec![(log, chain.head())], true)),
        ("flow", Message::Flow { open: true }),
        ("page", Message::Page(Page { id: 1, runs: vec![run] })),
        ("ack", Message::Ack(Ack { page: 1, results })),
    ])
}

/// Only inputs with a certain sum have one.
fn with_signature(mut choices: Vec<u8>) -> Vec<u8> {
    let sum = choices.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    choices.push(sum.wrapping_neg() % 16);
    choices
}

/// Logs for the target `entry`: good entries, and one of each fault.
fn entry_choices() -> Vec<(&'static str, Vec<u8>)> {
    let head = |signature: u8| {
        let mut start = vec![signature, 0];
        start.extend([7; 8]);
        start.extend([6, b'o', b'r', b'd', b'e', b'r', b's']);
        start.extend([0; 8]);
        start.push(0);
        start.extend([0, 0, 0, 1, 0, 0, 0, 0]);
        start
    };
    let good =
        [0b0000_0100, 1, 2, b'k', b'v', b'w', 0b0100_0100, 1, 0, b'k', 0b0010_0100, 1, 2, 1, 1, b'k', b'v'];
    let bad = [0b11, 5, 1, 0, b'k', 0b11, 1, 1, 0, b'k', 0b0100_0100, 1, 1, b'k', b'v'];
    vec![
        ("good", [head(0), good.to_vec()].concat()),
        ("bad", [head(0), bad.to_vec()].concat()),
        ("signed", with_signature([head(1), good.to_vec(), vec![0, 3, 40]].concat())),
    ]
}
