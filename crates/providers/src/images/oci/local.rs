//! An image in a folder or an archive on this machine: an OCI layout, or what `docker save` writes.

use std::fs::File;
use std::io::{BufRead, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use serde::Deserialize;
use types::Fault;

use super::super::Limits;
use super::super::fault::{reading, shown};
use super::super::unpack::{Entry, Pending, next_header, read_small, read_text, relative};
use super::documents::{
    CONFIG_BYTES, Descriptor, Document, ImageConfig, MANIFEST_BYTES, choose, config_of, document,
    hex_of, unusable,
};
use super::saved::Archive;

/// Indexes in indexes.
const MOST_DEEP: usize = 4;

/// A saved image that was opened and picked.
pub(in super::super) struct Local {
    files: Files,
    pub config: ImageConfig,
    /// Names it was saved under.
    pub names: Vec<String>,
    /// Digests under which registries have it: of its manifest, of the index it was in.
    pub digests: Vec<String>,
    layers: Vec<Blob>,
}

enum Files {
    Folder(OwnedFd),
    Archive(Archive),
}

struct Blob {
    path: String,
    /// sha256 and size of the file, where something vouches for them.
    sealed: Option<(String, u64)>,
}

/// Whether the first names in an archive are those of a saved image, not of a root file system.
/// Reads a little from its start.
pub(in super::super) fn looks_saved(input: &mut impl BufRead, limits: &Limits) -> bool {
    let mut pending = Pending::default();
    let mut first = true;
    for _ in 0..8 {
        let Ok(Some(header)) = next_header(input, first, false) else { return false };
        first = false;
        let Ok(size) = header.entry_size() else { return false };
        let read = match header.entry_type().as_byte() {
            b'L' => read_text(input, size).map(|text| pending.path = Some(text)),
            b'x' => read_small(input, size).and_then(|text| pending.extend(&text)),
            b'g' | b'K' => read_small(input, size).map(drop),
            _ => {
                let entry = Entry::new(&header, size, std::mem::take(&mut pending));
                let Ok(path) = entry.and_then(|e| relative(&e.path, limits)) else { return false };
                if !path.is_empty() {
                    return is_saved_name(&path);
                }
                Ok(())
            }
        };
        if read.is_err() {
            return false;
        }
    }
    false
}

fn is_saved_name(path: &[u8]) -> bool {
    let first = path.split(|&b| b == b'/').next().unwrap_or_default();
    let whole = ["oci-layout", "index.json", "manifest.json", "repositories", "blobs"];
    let hex = first.get(..64).is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit));
    whole.iter().any(|name| name.as_bytes() == first)
        || (hex && matches!(&first[64..], b"" | b".json" | b".tar"))
}

/// Opens an OCI layout; `None` if the folder is none.
pub(in super::super) fn open_layout(
    dir: &OwnedFd,
    pick: Option<&str>,
) -> Result<Option<Local>, Fault> {
    let dir = dir.try_clone().map_err(reading)?;
    let files = Files::Folder(dir);
    if !files.has("oci-layout") || !files.has("index.json") {
        return Ok(None);
    }
    open_oci(files, pick).map(Some)
}

/// Opens an archive of either form; `None` if it is a root file system after all.
pub(in super::super) fn open_archive(
    file: Arc<File>,
    pick: Option<&str>,
    limits: &Limits,
) -> Result<Option<Local>, Fault> {
    let files = Files::Archive(Archive::open(file, limits)?);
    // Newer `docker save` writes both forms; its names stand in its own.
    if files.has("manifest.json") {
        open_docker(files, pick).map(Some)
    } else if files.has("index.json") {
        open_oci(files, pick).map(Some)
    } else {
        Ok(None)
    }
}

fn open_oci(files: Files, pick: Option<&str>) -> Result<Local, Fault> {
    let bytes = files.small("index.json", MANIFEST_BYTES)?;
    let Document::Index(list) = document(&bytes)? else {
        return Err(unusable("its index can't be read"));
    };
    let named = |d: &Descriptor| pick.is_none_or(|pick| d.name().is_some_and(|n| same(n, pick)));
    let wanted: Vec<Descriptor> = list.iter().filter(|d| named(d)).cloned().collect();
    let mut names: Vec<&str> = wanted.iter().filter_map(Descriptor::name).collect();
    names.dedup();
    if names.len() > 1 || (pick.is_some() && wanted.is_empty()) {
        return Err(several(list.iter().filter_map(Descriptor::name)));
    }
    let names = names.into_iter().map(str::to_owned).collect();
    let mut digests = Vec::new();
    let mut list = wanted;
    for _ in 0..MOST_DEEP {
        let chosen = choose(&list)?;
        let bytes = files.sealed(chosen, MANIFEST_BYTES)?;
        digests.push(chosen.hex()?.to_owned());
        match document(&bytes)? {
            Document::Index(below) => list = below,
            Document::Image(image) => {
                image.check()?;
                let config = config_of(&files.sealed(&image.config, CONFIG_BYTES)?)?;
                if config.diff_ids.len() != image.layers.len() {
                    return Err(unusable("its manifest and its configuration disagree"));
                }
                let blob = |d: &Descriptor| {
                    let hex = d.hex()?;
                    Ok(Blob { path: path_of(hex), sealed: Some((hex.to_owned(), d.size)) })
                };
                let layers = image.layers.iter().map(blob).collect::<Result<_, Fault>>()?;
                return Ok(Local { files, config, names, digests, layers });
            }
        }
    }
    Err(unusable("its indexes have no end"))
}

/// One image in `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

fn open_docker(files: Files, pick: Option<&str>) -> Result<Local, Fault> {
    let bytes = files.small("manifest.json", MANIFEST_BYTES)?;
    let mut list: Vec<Saved> = serde_json::from_slice(&bytes)
        .map_err(|e| unusable("its manifest can't be read").caused_by(e))?;
    let tags = |s: &Saved| s.repo_tags.clone().unwrap_or_default();
    let all: Vec<String> = list.iter().flat_map(tags).collect();
    if let Some(pick) = pick {
        list.retain(|s| tags(s).iter().any(|tag| same(tag, pick)));
    }
    let (Some(saved), None) = (list.pop(), list.pop()) else {
        return Err(several(all.iter().map(String::as_str)));
    };
    let clean = |path: &str| {
        let path = relative(path.as_bytes(), &Limits::default())?;
        String::from_utf8(path).map_err(|e| unusable("its manifest can't be read").caused_by(e))
    };
    let path = clean(&saved.config)?;
    let bytes = files.small(&path, CONFIG_BYTES)?;
    // The name is the digest, in every form there was.
    let name = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    if hex_of(&format!("sha256:{name}")).is_ok_and(|hex| sha256(&bytes) != hex) {
        return Err(wrong_digest());
    }
    let config = config_of(&bytes)?;
    if config.diff_ids.len() != saved.layers.len() {
        return Err(unusable("its manifest and its configuration disagree"));
    }
    let blob = |path: &String| Ok(Blob { path: clean(path)?, sealed: None });
    let layers = saved.layers.iter().map(blob).collect::<Result<_, Fault>>()?;
    Ok(Local { files, config, names: tags(&saved), digests: Vec::new(), layers })
}

impl Local {
    /// Opens a layer, undermost first. What is read is checked against its digest, if it has one.
    pub(in super::super) fn open(&self, layer: usize) -> Result<Box<dyn Read + Send>, Fault> {
        let blob = &self.layers[layer];
        let file = self.files.open(&blob.path)?;
        Ok(match &blob.sealed {
            Some((hex, size)) => Box::new(super::super::sealed::Sealed::new(file, hex, *size)),
            None => file,
        })
    }

    /// Bytes of all layers as they lie there.
    pub(in super::super) fn size(&self) -> u64 {
        self.layers.iter().filter_map(|b| b.sealed.as_ref()).map(|(_, size)| size).sum()
    }
}

impl Files {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(dir) => file_in(dir, name).is_ok(),
            Self::Archive(archive) => archive.has(name),
        }
    }

    fn open(&self, path: &str) -> Result<Box<dyn Read + Send>, Fault> {
        match self {
            Self::Archive(archive) => Ok(Box::new(archive.part(path)?)),
            Self::Folder(dir) => Ok(Box::new(file_in(dir, path).map_err(|e| {
                let what = shown(path.as_bytes());
                Fault::bad_request(format!("the layout lacks the file '{what}'")).caused_by(e)
            })?)),
        }
    }

    fn small(&self, path: &str, most: u64) -> Result<Vec<u8>, Fault> {
        if let Self::Archive(archive) = self {
            return archive.small(path, most);
        }
        let mut bytes = Vec::new();
        self.open(path)?.take(most + 1).read_to_end(&mut bytes).map_err(reading)?;
        if bytes.len() as u64 > most {
            return Err(unusable("a document of it is too large"));
        }
        Ok(bytes)
    }

    /// A document that is what its digest says.
    fn sealed(&self, what: &Descriptor, most: u64) -> Result<Vec<u8>, Fault> {
        let hex = what.hex()?;
        let bytes = self.small(&path_of(hex), most)?;
        if sha256(&bytes) == hex { Ok(bytes) } else { Err(wrong_digest()) }
    }
}

fn file_in(dir: &OwnedFd, path: &str) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat2(dir, path, flags, Mode::empty(), ResolveFlags::BENEATH)?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(std::io::ErrorKind::InvalidInput.into()),
    }
}

fn path_of(hex: &str) -> String {
    format!("blobs/sha256/{hex}")
}

/// Two ways to write one name.
fn same(a: &str, b: &str) -> bool {
    use super::super::reference::ImageName;
    a == b || ImageName::parse_tag(a).is_ok_and(|a| ImageName::parse_tag(b).is_ok_and(|b| a == b))
}

fn several<'a>(names: impl Iterator<Item = &'a str>) -> Fault {
    let names: Vec<String> = names.take(8).map(|name| shown(name.as_bytes())).collect();
    Fault::bad_request(match names.len() {
        0 => "there is no image in it, or several without names".to_owned(),
        _ => format!("it holds these images, of which one has to be picked: {}", names.join(", ")),
    })
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(bytes))
}

fn wrong_digest() -> Fault {
    unusable("what it holds does not have the digest it should have")
}
