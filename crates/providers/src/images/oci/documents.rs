//! The documents of an image: index, manifest, configuration. All of them come from outside, so
//! every list and text in them is bounded, and nothing ambiguous is taken.

use serde::Deserialize;
use types::{ErrorCode, Fault};

use super::super::manifest::Config;

/// An index or a manifest; what registries themselves allow.
pub(in super::super) const MANIFEST_BYTES: u64 = 4 << 20;
/// A configuration holds a line of history for every step of the build.
pub(in super::super) const CONFIG_BYTES: u64 = 8 << 20;
/// More layers than this an overlay could not name.
pub(super) const MOST_LAYERS: usize = 127;
/// Manifests of an index.
const MOST_MANIFESTS: usize = 1000;
/// Variables of an image, together, as JSON. They go to the agent in one message.
const MOST_ENV_BYTES: usize = 40 << 10;
const MOST_PATH_BYTES: usize = 1024;
const MOST_USER_BYTES: usize = 256;

/// This machine's platform, in the words of images.
const OS: &str = "linux";
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// Points to a blob by its digest.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in super::super) struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    platform: Option<Platform>,
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

#[derive(Debug)]
pub(in super::super) enum Document {
    Index(Vec<Descriptor>),
    Image(ImageManifest),
}

#[derive(Debug)]
pub(in super::super) struct ImageManifest {
    pub config: Descriptor,
    /// Undermost first.
    pub layers: Vec<Descriptor>,
}

/// What an image says of itself.
#[derive(Debug)]
pub(in super::super) struct ImageConfig {
    pub config: Config,
    /// sha256 of each layer without its compression, undermost first.
    pub diff_ids: Vec<String>,
    /// What was left out, for people.
    pub notes: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AnyDocument {
    media_type: Option<String>,
    artifact_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    fs_layers: Option<serde_json::Value>,
}

impl Descriptor {
    /// The digest's 64 hex digits.
    pub(in super::super) fn hex(&self) -> Result<&str, Fault> {
        hex_of(&self.digest)
    }

    /// The name that a layout gives it.
    pub(super) fn name(&self) -> Option<&str> {
        let keys = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
        keys.iter().find_map(|key| self.annotations.get(*key)).map(String::as_str)
    }
}

impl ImageManifest {
    pub(in super::super) fn check(&self) -> Result<(), Fault> {
        let known = ["", "application/vnd.oci.image.config.v1+json"];
        let kind = self.config.media_type.as_str();
        if !known.contains(&kind) && !kind.starts_with("application/vnd.docker.container.image.v1")
        {
            return Err(unusable("it is not the image of a container"));
        }
        if self.layers.len() > MOST_LAYERS {
            return Err(unusable(&format!("it has more than {MOST_LAYERS} layers")));
        }
        self.config.hex()?;
        if self.config.size > CONFIG_BYTES {
            return Err(unusable("its configuration is too large"));
        }
        for layer in &self.layers {
            layer.hex()?;
            if layer.media_type.contains("encrypted") {
                return Err(unusable("its layers are encrypted"));
            }
        }
        Ok(())
    }
}

/// Parses an index or a manifest, of either family.
pub(in super::super) fn document(bytes: &[u8]) -> Result<Document, Fault> {
    if bytes.len() as u64 > MANIFEST_BYTES {
        return Err(unusable("its manifest is too large"));
    }
    let found: AnyDocument = serde_json::from_slice(bytes)
        .map_err(|e| unusable("its manifest can't be read").caused_by(e))?;
    match found {
        AnyDocument { fs_layers: Some(_), .. } => {
            Err(unusable("its manifest has a form (schema 1) that is long out of use"))
        }
        // What is both could be taken for either by others.
        AnyDocument {
            manifests: Some(manifests), layers: None, config: None, media_type, ..
        } => {
            if manifests.len() > MOST_MANIFESTS
                || media_type.is_some_and(|t| t.contains("image.manifest"))
            {
                return Err(unusable("its index can't be read"));
            }
            Ok(Document::Index(manifests))
        }
        AnyDocument {
            manifests: None,
            layers: Some(layers),
            config: Some(config),
            artifact_type,
            ..
        } => {
            if artifact_type.is_some_and(|t| !t.is_empty()) {
                return Err(unusable("it is not the image of a container"));
            }
            Ok(Document::Image(ImageManifest { config, layers }))
        }
        _ => Err(unusable("its manifest is neither an index nor an image")),
    }
}

/// The one of an index that is for this machine.
pub(in super::super) fn choose(list: &[Descriptor]) -> Result<&Descriptor, Fault> {
    let fits = |d: &&Descriptor| match &d.platform {
        Some(p) => {
            // A later variant may use instructions that this processor lacks.
            let variant = p.variant.as_deref().unwrap_or_default();
            let plain =
                matches!((ARCHITECTURE, variant), (_, "") | ("amd64", "v1") | ("arm64", "v8"));
            p.os == OS && p.architecture == ARCHITECTURE && plain
        }
        None => false,
    };
    let mut without = list.iter().filter(|d| d.platform.is_none());
    match (list.iter().find(fits), without.next(), without.next()) {
        (Some(found), ..) | (None, Some(found), None) => Ok(found),
        (None, Some(_), Some(_)) => Err(unusable("its index does not say which image is meant")),
        (None, None, _) => Err(unusable(&format!("there is none of it for {OS}/{ARCHITECTURE}"))),
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AnyConfig {
    architecture: String,
    os: String,
    config: Option<RunConfig>,
    rootfs: RootFs,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RunConfig {
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
}

/// Parses an image's configuration.
pub(in super::super) fn config_of(bytes: &[u8]) -> Result<ImageConfig, Fault> {
    let AnyConfig { architecture, os, config, rootfs } = serde_json::from_slice(bytes)
        .map_err(|e| unusable("its configuration can't be read").caused_by(e))?;
    let says = |what: &str, ours: &str| what.is_empty() || what == ours;
    if !says(&os, OS) || !says(&architecture, ARCHITECTURE) {
        return Err(unusable(&format!("it is not for {OS}/{ARCHITECTURE}")));
    }
    if rootfs.diff_ids.len() > MOST_LAYERS {
        return Err(unusable(&format!("it has more than {MOST_LAYERS} layers")));
    }
    let ids = rootfs.diff_ids.iter().map(|id| hex_of(id).map(str::to_owned));
    let diff_ids = ids.collect::<Result<Vec<_>, _>>()?;
    let run = config.unwrap_or_default();
    let mut notes = Vec::new();
    let env = run.env.unwrap_or_default();
    let said = env.len();
    let env: Vec<String> = env.into_iter().filter(|v| is_variable(v)).collect();
    if env.len() < said {
        notes.push(format!("{} × variable without a name left out", said - env.len()));
    }
    let written = |v: &String| serde_json::to_string(v).map_or(usize::MAX, |text| text.len() + 1);
    if env.iter().map(written).fold(0, usize::saturating_add) > MOST_ENV_BYTES {
        return Err(unusable("its variables are too long"));
    }
    let text = |text: Option<String>, most: usize, what: &str| match text.filter(|t| !t.is_empty())
    {
        Some(t) if t.len() > most || t.contains('\0') => {
            Err(unusable(&format!("its {what} can't be used")))
        }
        other => Ok(other),
    };
    let workdir = text(run.working_dir, MOST_PATH_BYTES, "working directory")?;
    let workdir = workdir.map(|dir| if dir.starts_with('/') { dir } else { format!("/{dir}") });
    let user = text(run.user, MOST_USER_BYTES, "user")?;
    Ok(ImageConfig { config: Config { env, workdir, user }, diff_ids, notes })
}

fn is_variable(text: &str) -> bool {
    text.find('=').is_some_and(|at| at > 0) && !text.contains('\0')
}

/// The hex digits of a digest. Others than sha256 are not taken.
pub(super) fn hex_of(digest: &str) -> Result<&str, Fault> {
    let hex = digest.strip_prefix("sha256:").filter(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    });
    hex.ok_or_else(|| unusable("a digest in it is not a sha256"))
}

/// An image that is not what it should be; whoever named it can't mend that.
pub(in super::super) fn unusable(why: &str) -> Fault {
    Fault::new(ErrorCode::Unprocessable, format!("the image can't be used: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(c: char) -> String {
        format!("sha256:{}", c.to_string().repeat(64))
    }

    fn index(entries: &[(&str, &str, &str)]) -> Vec<Descriptor> {
        let entry = |(n, (os, arch, variant)): (usize, &(&str, &str, &str))| {
            let digest = digest(char::from_digit(n as u32, 16).unwrap());
            let mut d = serde_json::json!({ "digest": digest, "size": 1 });
            if !os.is_empty() {
                d["platform"] = serde_json::json!({ "os": os, "architecture": arch });
            }
            if !variant.is_empty() {
                d["platform"]["variant"] = (*variant).into();
            }
            d
        };
        let list: Vec<_> = entries.iter().enumerate().map(entry).collect();
        let text = serde_json::json!({ "manifests": list }).to_string();
        match document(text.as_bytes()).unwrap() {
            Document::Index(list) => list,
            Document::Image(_) => panic!("an image"),
        }
    }

    #[test]
    fn the_one_for_this_machine_is_chosen() {
        let list = index(&[
            ("linux", "arm64", "v8"),
            ("linux", "amd64", "v3"),
            ("unknown", "unknown", ""),
            ("linux", "amd64", ""),
        ]);
        assert_eq!(choose(&list).unwrap().digest, digest('3'));
        assert!(choose(&index(&[("linux", "arm64", "")])).is_err());
        assert_eq!(choose(&index(&[("", "", "")])).unwrap().digest, digest('0'));
        assert!(choose(&index(&[("", "", ""), ("", "", "")])).is_err());
        assert!(choose(&[]).is_err());
    }

    #[test]
    fn what_is_ambiguous_or_old_is_refused() {
        let both = r#"{"manifests": [], "config": {}, "layers": []}"#;
        for text in [both, "{}", "[]", "", r#"{"fsLayers": []}"#, r#"{"layers": []}"#] {
            assert!(document(text.as_bytes()).is_err(), "{text}");
        }
        let image = r#"{"config": {"digest": "sha512:00"}, "layers": []}"#;
        let Document::Image(image) = document(image.as_bytes()).unwrap() else { panic!() };
        assert!(image.check().is_err());
    }

    #[test]
    fn settings_are_taken_and_bounded() {
        let text = format!(
            r#"{{"os": "linux", "architecture": "amd64", "config": {{"Env": ["A=b", "=x", "C"],
            "WorkingDir": "srv", "User": "app:www", "Entrypoint": ["/x"]}},
            "rootfs": {{"diff_ids": ["{}"]}}}}"#,
            digest('a')
        );
        let read = config_of(text.as_bytes()).unwrap();
        assert_eq!(read.config.env, ["A=b"]);
        assert_eq!(read.config.workdir.as_deref(), Some("/srv"));
        assert_eq!(read.config.user.as_deref(), Some("app:www"));
        assert_eq!(read.diff_ids, ["a".repeat(64)]);
        assert_eq!(read.notes.len(), 1);
        let long = format!(r#"{{"config": {{"Env": ["A={}"]}}}}"#, "\\u0001".repeat(8_000));
        assert!(config_of(long.as_bytes()).is_err());
        assert!(config_of(br#"{"os": "windows"}"#).is_err());
        assert!(config_of(br#"{"config": {"User": "a\u0000b"}}"#).is_err());
    }
}
