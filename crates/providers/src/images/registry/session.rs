//! One image at one registry: its documents, and the right to read it.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::WWW_AUTHENTICATE;
use reqwest::{Certificate, Response, StatusCode, Url};
use sha2::{Digest, Sha256};
use types::Fault;

use super::super::oci::{
    CONFIG_BYTES, Descriptor, Document, ImageConfig, MANIFEST_BYTES, choose, config_of, document,
    unusable,
};
use super::super::reference::registry_of;
use super::address::Policy;
use super::auth::{answer, challenge};
use super::credentials::{Credentials, find};
use super::http::{Call, Http, Patience, Trouble, failed};

/// Every form that is understood.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";
/// A file of certificates: more than any machine's own list has.
const ROOTS: u64 = 8 << 20;
/// Indexes in indexes.
const MOST_DEEP: usize = 4;

pub(in super::super) struct Session {
    pub(super) http: Http,
    base: Url,
    repository: String,
    credentials: Credentials,
    /// The last answer to a challenge.
    authorization: Mutex<Option<String>>,
}

/// What a name stands for at the registry.
pub(in super::super) struct Resolved {
    pub config: ImageConfig,
    /// Undermost first.
    pub layers: Vec<Descriptor>,
    /// Of the manifest, and of the index it was in.
    pub digests: Vec<String>,
}

impl Session {
    /// `name` is in its one form, without a digest. Blocks for a moment: it reads a file.
    pub(in super::super) fn new(
        name: &str,
        policy: &Policy,
        docker: Option<&Path>,
        patience: Patience,
    ) -> Result<Arc<Self>, Fault> {
        let (registry, repository) = registry_of(name);
        let base = policy.base(registry)?;
        policy.check(&base)?;
        let roots = policy.listed(&base).map(|registry| roots(&registry.ca_file));
        let roots = roots.transpose()?.unwrap_or_default();
        Ok(Arc::new(Self {
            credentials: find(policy, &base, docker),
            http: Http::new(policy.clone(), patience, roots)?,
            base,
            repository,
            authorization: Mutex::default(),
        }))
    }

    /// The digest and content of what the tag or digest means.
    pub(in super::super) async fn top(&self, reference: &str) -> Result<(String, Vec<u8>), Fault> {
        let bytes = self.document("manifests", reference, MANIFEST_BYTES).await?;
        let hex = data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes));
        match reference.strip_prefix("sha256:") {
            Some(asked) if asked != hex => Err(wrong_digest()),
            _ => Ok((hex, bytes)),
        }
    }

    /// Follows the documents down to the image for this machine.
    pub(in super::super) async fn resolve(
        &self,
        top: String,
        bytes: &[u8],
    ) -> Result<Resolved, Fault> {
        let mut digests = vec![top];
        let mut found = document(bytes)?;
        for _ in 0..MOST_DEEP {
            match found {
                Document::Index(list) => {
                    let chosen = choose(&list)?.clone();
                    let bytes = self.sealed("manifests", &chosen, MANIFEST_BYTES).await?;
                    digests.push(chosen.hex()?.to_owned());
                    found = document(&bytes)?;
                }
                Document::Image(image) => {
                    image.check()?;
                    let config = self.sealed("blobs", &image.config, CONFIG_BYTES).await?;
                    let config = config_of(&config)?;
                    if config.diff_ids.len() != image.layers.len() {
                        return Err(unusable("its manifest and its configuration disagree"));
                    }
                    return Ok(Resolved { config, layers: image.layers, digests });
                }
            }
        }
        Err(unusable("its indexes have no end"))
    }

    async fn sealed(&self, kind: &str, what: &Descriptor, most: u64) -> Result<Vec<u8>, Fault> {
        let bytes = self.document(kind, &what.digest, most).await?;
        let hex = data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes));
        if hex == what.hex()? { Ok(bytes) } else { Err(wrong_digest()) }
    }

    async fn document(&self, kind: &str, reference: &str, most: u64) -> Result<Vec<u8>, Fault> {
        let mut tries = 0;
        loop {
            match self.document_once(kind, reference, most).await {
                Ok(bytes) => return Ok(bytes),
                Err(trouble) => self.http.pause(trouble, &mut tries).await?,
            }
        }
    }

    async fn document_once(
        &self,
        kind: &str,
        reference: &str,
        most: u64,
    ) -> Result<Vec<u8>, Trouble> {
        let response = self.get(kind, reference, 0).await?;
        self.http.body(response, most).await
    }

    /// Asks for something of the repository, from a byte on; asks for a key if that is wanted.
    pub(super) async fn get(
        &self,
        kind: &str,
        reference: &str,
        from: u64,
    ) -> Result<Response, Trouble> {
        let path = format!("v2/{}/{kind}/{reference}", self.repository);
        let url = self.base.join(&path);
        let url = url.map_err(|e| Trouble::Final(unusable("its name").caused_by(e)))?;
        let mut asked_for_a_key = false;
        loop {
            let mut call = Call::get(url.clone());
            call.accept = (kind == "manifests").then_some(MANIFESTS);
            call.from = from;
            call.authorization = self.key().clone();
            let response = self.http.send(call).await?;
            if response.status().is_success() {
                return Ok(response);
            }
            // Only the registry itself is told who we are, not whom it sends us to.
            let here = response.url().origin() == self.base.origin();
            if response.status() == StatusCode::UNAUTHORIZED && here && !asked_for_a_key {
                asked_for_a_key = true;
                let told = response.headers().get_all(WWW_AUTHENTICATE);
                let told = told.iter().filter_map(|v| v.to_str().ok());
                if let Some(challenge) = challenge(told) {
                    let scope = format!("repository:{}:pull", self.repository);
                    let key = answer(&self.http, &challenge, &self.credentials, &scope).await?;
                    if key.is_some() {
                        *self.key() = key;
                        continue;
                    }
                }
            }
            let what = match kind {
                "manifests" => format!("image {}", self.repository),
                _ => format!("such part of the image {}", self.repository),
            };
            return Err(failed(&response, &what));
        }
    }

    fn key(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The certificates in a file of the configuration.
fn roots(file: &Path) -> Result<Vec<Certificate>, Fault> {
    if file.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    let failed = || Fault::unavailable("the ca_file of a registry can't be read");
    let mut text = Vec::new();
    let opened = File::open(file).map_err(|e| failed().caused_by(e))?;
    opened.take(ROOTS).read_to_end(&mut text).map_err(|e| failed().caused_by(e))?;
    let roots = Certificate::from_pem_bundle(&text).map_err(|e| failed().caused_by(e))?;
    if roots.is_empty() { Err(failed()) } else { Ok(roots) }
}

fn wrong_digest() -> Fault {
    unusable("the registry gave something else than its digest says")
}
