//! One request to a registry: only where we may go, with a bound on every wait.

use std::error::Error as _;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{Certificate, Client, Method, Response, Url, redirect};
use rustls::CertificateError;
use types::{ErrorCode, Fault};

use super::address::{INSIDE, Policy, Reach, may_reach, refused};

const MOST_REDIRECTS: u32 = 5;
/// The longest a registry may ask us to wait before we try again.
const MOST_WAIT: Duration = Duration::from_secs(30);

/// How long registries are waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// To be connected.
    pub connect: Duration,
    /// Until an answer begins, and between its bytes.
    pub silence: Duration,
    /// In so long a time so many bytes have to come, or the line counts as dead.
    pub slow: (Duration, u64),
    /// Tries without progress, for one thing.
    pub tries: u32,
    /// Before the second try; each later one waits twice as long, more or less.
    pub pause: Duration,
    /// For a whole image.
    pub whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            slow: (Duration::from_secs(60), 256 << 10),
            tries: 4,
            pause: Duration::from_millis(250),
            whole: Duration::from_secs(3600),
        }
    }
}

/// Why a try failed.
pub(super) enum Trouble {
    /// It may go well another time; not before so long.
    Again(Fault, Option<Duration>),
    Final(Fault),
}

impl Trouble {
    pub(super) fn again(fault: Fault) -> Self {
        Self::Again(fault, None)
    }

    pub(super) fn fault(self) -> Fault {
        match self {
            Self::Again(fault, _) | Self::Final(fault) => fault,
        }
    }
}

pub(super) struct Call {
    pub method: Method,
    pub url: Url,
    pub accept: Option<&'static str>,
    /// From this byte on.
    pub from: u64,
    pub authorization: Option<String>,
    pub form: Option<String>,
}

impl Call {
    pub(super) fn get(url: Url) -> Self {
        let (accept, authorization, form) = (None, None, None);
        Self { method: Method::GET, url, accept, from: 0, authorization, form }
    }
}

/// Connections to registries.
pub(super) struct Http {
    public: Client,
    listed: Client,
    policy: Policy,
    pub patience: Patience,
}

impl Http {
    /// `roots` are trusted beside the machine's own, at all places that are listed.
    pub(super) fn new(
        policy: Policy,
        patience: Patience,
        roots: Vec<Certificate>,
    ) -> Result<Self, Fault> {
        // The second caller finds a provider installed, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = |reach, roots: Vec<Certificate>| {
            Client::builder()
                .user_agent(concat!("stacyvm/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .no_proxy()
                .dns_resolver(std::sync::Arc::new(Checked(reach)))
                .connect_timeout(patience.connect)
                .pool_max_idle_per_host(4)
                .tls_certs_merge(roots)
                .build()
                .map_err(|e| {
                    Fault::unavailable("https can't be set up on this machine").caused_by(e)
                })
        };
        let (public, listed) = (client(Reach::Public, Vec::new())?, client(Reach::Listed, roots)?);
        Ok(Self { public, listed, policy, patience })
    }

    /// Sends, and follows where it is sent, if it may go there. The key goes to the first place
    /// only.
    pub(super) async fn send(&self, mut call: Call) -> Result<Response, Trouble> {
        let first = call.url.origin();
        for _ in 0..=MOST_REDIRECTS {
            let client = match self.policy.check(&call.url).map_err(Trouble::Final)? {
                Reach::Public => &self.public,
                Reach::Listed => &self.listed,
            };
            let mut request = client.request(call.method.clone(), call.url.clone());
            if let Some(accept) = call.accept {
                request = request.header(ACCEPT, accept);
            }
            if call.from > 0 {
                request = request.header(RANGE, format!("bytes={}-", call.from));
            }
            if let Some(key) = call.authorization.as_deref().filter(|_| call.url.origin() == first)
            {
                let mut key = HeaderValue::from_str(key)
                    .map_err(|e| Trouble::Final(no_use("its key can't be sent").caused_by(e)))?;
                key.set_sensitive(true);
                request = request.header(AUTHORIZATION, key);
            }
            if let Some(form) = &call.form {
                request = request
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.clone());
            }
            let sent = tokio::time::timeout(self.patience.silence, request.send()).await;
            let response = sent
                .map_err(|_| Trouble::again(silent(&call.url)))?
                .map_err(|e| unreachable(&call.url, e))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let target = response.headers().get(LOCATION).and_then(|v| v.to_str().ok());
            let target = target.and_then(|target| call.url.join(target).ok());
            call.url = target.ok_or_else(|| Trouble::Final(no_use("it sends us nowhere")))?;
            if call.form.is_some() {
                return Err(Trouble::Final(no_use("its issuer of tokens sends us elsewhere")));
            }
        }
        Err(Trouble::Final(no_use("it sends us in circles")))
    }

    /// A body that fits in memory.
    pub(super) async fn body(&self, mut response: Response, most: u64) -> Result<Vec<u8>, Trouble> {
        let url = response.url().clone();
        let mut body = Vec::new();
        let read = async {
            while let Some(chunk) = response.chunk().await.map_err(|e| unreachable(&url, e))? {
                if body.len() as u64 + chunk.len() as u64 > most {
                    return Err(Trouble::Final(no_use("an answer of it is too large")));
                }
                body.extend_from_slice(&chunk);
            }
            Ok(())
        };
        // Documents are small: the whole one has to come in the time of a silence.
        match tokio::time::timeout(self.patience.silence, read).await {
            Ok(done) => done.map(|()| body),
            Err(_) => Err(Trouble::again(silent(&url))),
        }
    }

    /// Waits before another try; gives the fault back if there is to be none.
    pub(super) async fn pause(&self, trouble: Trouble, tries: &mut u32) -> Result<(), Fault> {
        *tries += 1;
        match trouble {
            Trouble::Again(_, after) if *tries < self.patience.tries => {
                let usual = self.patience.pause.saturating_mul(1 << (*tries - 1).min(8));
                let mut random = [0; 2];
                let _ = getrandom::fill(&mut random); // without it: no jitter
                let jitter = usual.mul_f64(f64::from(u16::from_ne_bytes(random)) / 65536.0);
                let wait = (usual / 2 + jitter).max(after.unwrap_or_default()).min(MOST_WAIT);
                tokio::time::sleep(wait).await;
                Ok(())
            }
            trouble => Err(trouble.fault()),
        }
    }
}

/// Resolves names, and leaves out addresses that may not be connected to.
struct Checked(Reach);

/// A name that has none but inside addresses.
#[derive(Debug, thiserror::Error)]
#[error("the name has no address that may be connected to")]
struct Inside;

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (good, bad): (Vec<_>, Vec<_>) =
                found.partition(|address| may_reach(address.ip(), reach));
            if good.is_empty() && !bad.is_empty() {
                return Err(Inside.into());
            }
            Ok(Box::new(good.into_iter()) as Addrs)
        })
    }
}

/// What an answer that is no success means; `what` was asked for.
pub(super) fn failed(response: &Response, what: &str) -> Trouble {
    let host = response.url().host_str().unwrap_or_default().to_owned();
    let after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok());
    let after = after.and_then(|v| v.parse().ok()).map(Duration::from_secs);
    match response.status().as_u16() {
        404 => Trouble::Final(Fault::new(
            ErrorCode::ImageNotFound,
            format!("the registry '{host}' has no {what}"),
        )),
        401 | 403 => Trouble::Final(Fault::new(
            ErrorCode::ImageNotFound,
            format!("the registry '{host}' has no {what}, or not for us"),
        )),
        status @ (408 | 429 | 500..) => Trouble::Again(
            Fault::unavailable(format!("the registry '{host}' answered {status}")),
            after,
        ),
        status => Trouble::Final(no_use(&format!("'{host}' answered {status}"))),
    }
}

fn unreachable(url: &Url, e: reqwest::Error) -> Trouble {
    let host = url.host_str().unwrap_or_default();
    let mut cause = e.source();
    while let Some(source) = cause {
        if source.is::<Inside>() {
            return Trouble::Final(refused(host, INSIDE));
        }
        if let Some(why) = distrusted(source) {
            return Trouble::Final(no_use(&format!("'{host}': {why}")).caused_by(e));
        }
        cause = source.source();
    }
    let what = if e.is_connect() { "can't be reached" } else { "broke off" };
    // The address it has goes into the log alone.
    Trouble::again(Fault::unavailable(format!("the registry '{host}' {what}")).caused_by(e))
}

/// Why a line could not be made safe, if it was that; another try would not help.
fn distrusted(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    // What an I/O error wraps is not its source, but that one's; and they wrap one another.
    let mut innermost = error;
    while let Some(inner) = innermost.downcast_ref::<std::io::Error>().and_then(|e| e.get_ref()) {
        innermost = inner;
    }
    Some(match innermost.downcast_ref()? {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet"
            }
            _ => {
                "its certificate is not trusted by this machine (a CA of its own: ca_file in \
                 images.registries)"
            }
        },
        rustls::Error::InvalidMessage(_) => {
            "it does not speak https (if that is meant: http:// in images.registries)"
        }
        _ => return None,
    })
}

pub(super) fn silent(url: &Url) -> Fault {
    let host = url.host_str().unwrap_or_default();
    Fault::unavailable(format!("the registry '{host}' is too slow"))
}

pub(super) fn no_use(why: &str) -> Fault {
    Fault::new(ErrorCode::Unprocessable, format!("the registry can't be used: {why}"))
}
