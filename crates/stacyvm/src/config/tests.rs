//! Every key loads, every refusal refuses.

use std::path::PathBuf;

use super::setting::Setting;
use super::*;
use crate::check::Severity;

fn env(pairs: &[(&str, &str)]) -> Environment {
    let home = [("HOME".to_owned(), "/nonexistent".to_owned())];
    let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Environment::from_pairs(home.into_iter().chain(pairs))
}

fn file(text: &str) -> (tempfile::TempDir, LoadOptions) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stacyvm.yaml");
    std::fs::write(&path, text).unwrap();
    (dir, LoadOptions { file: Some(path), overrides: Vec::new() })
}

fn yaml(text: &str) -> Result<Loaded, ConfigError> {
    yaml_env(text, &[])
}

fn yaml_env(text: &str, pairs: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let (_dir, options) = file(text);
    load(&options, &env(pairs))
}

fn problems(text: &str) -> String {
    match yaml(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(e) => e.problems.join("\n"),
    }
}

/// Key by key, at the defaults that existing configurations rely on.
const CONTRACT: &str = r#"
server: {host: "0.0.0.0", port: 7423, preview_domain: localhost, cors_allowed_origins: ["*"]}
worker:
  id: ""
  control_plane_url: http://localhost:7423
  listen_addr: ""
  preview_domain: ""
  heartbeat_interval: 30s
  shutdown_timeout: 10s
  rpc_tls: {enabled: false, server_cert_file: "", server_key_file: "", client_ca_file: "",
    ca_file: "", client_cert_file: "", client_key_file: "", server_name: "",
    insecure_skip_verify: false}
providers:
  default: auto
  mock: {enabled: false}
  firecracker: {enabled: true, firecracker_path: /usr/local/bin/firecracker,
    kernel_path: /var/lib/stacyvm/vmlinux.bin, default_rootfs: "", agent_path: ./bin/stacyvm-agent,
    data_dir: /var/lib/stacyvm}
  docker:
    {enabled: true, socket: "", runtime: runc, default_image: "alpine:latest",
    network_mode: bridge, seccomp_profile: default, read_only_rootfs: false, memory: 512m,
    cpus: 1, pids_limit: 256, user: "", dropped_caps: [ALL], added_caps: [], tmpfs: {"/tmp": "rw"},
    pool_security: {per_user_uid: false, pid_namespace: false, hidepid: false,
    workspace_permissions: true}}
  e2b: {enabled: false, api_key: "", base_url: "https://api.e2b.dev"}
  custom: {enabled: false, name: custom, base_url: "", api_key: "", timeout: 60s}
  proot: {enabled: false, proot_binary: proot, rootfs_path: /var/lib/stacyvm/rootfs,
    workspace_base: /var/lib/stacyvm/workspaces, default_timeout: 60s, max_sandboxes: 10,
    max_memory_mb: 512, max_disk_mb: 1024, languages: [python3, node, bash]}
defaults: {ttl: 30m, image: "alpine:latest", memory_mb: 1024, vcpus: 1, disk_size_mb: 1024,
  pool_size: 0, pool_template: "", max_ttl: 24h, default_exec_timeout: 0s, max_exec_timeout: 10m,
  max_sandboxes: 0, max_sandboxes_per_owner: 0, spawn_overflow: reject, spawn_queue_timeout: 30s,
  max_spawn_queue: 100}
auth: {enabled: false, api_key: "", admin_api_key: "", worker_token: "", worker_token_file: "",
  worker_tokens: {}, worker_signing_key: "", worker_signing_key_file: "", worker_signing_keys: [],
  worker_revoked_token_ids: [], admin_fallback_enabled: true, admin_audit_retention: 0s,
  oidc_enabled: false, oidc_issuer: "", oidc_audience: "", oidc_jwks_url: "", oidc_public_key: "",
  oidc_public_key_file: "", oidc_groups_claim: groups, oidc_tenant_claim: tenant_id,
  oidc_admin_groups: [], oidc_operator_groups: [], oidc_viewer_groups: []}
rate_limit: {enabled: false, requests_per_minute: 120, burst: 60, key_by: owner, bucket_ttl: 15m,
  cleanup_interval: 1m}
database: {driver: sqlite, path: stacyvm.db, dsn: ""}
logging: {level: info, format: json}
pool: {enabled: false, max_vms: 10, max_users_per_vm: 5, image: "alpine:latest", memory_mb: 2048,
  vcpus: 2, overflow: reject}
"#;

#[test]
fn every_key_of_the_contract_loads_at_its_default() {
    let loaded = yaml(CONTRACT).unwrap_or_else(|e| panic!("{e}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert!(unserved(&loaded).is_empty(), "{:?}", unserved(&loaded));
    assert_eq!(loaded.config.server.host, "0.0.0.0");
    assert_eq!(loaded.config.providers.default, "native");
    // What the contract sets is every key but ours.
    let mut config = loaded.config.clone();
    let ours =
        ["data_dir", "server.max_body_bytes", "exec.max_output_bytes", "retention.sandboxes"];
    for (path, _) in load::slots(&mut config) {
        let is_ours = ours.contains(&path.as_str())
            || path.starts_with("images.")
            || path.starts_with("retention.images")
            || path.starts_with("defaults.warm_pool")
            || path.starts_with("retention.execs")
            || path.starts_with("providers.native.");
        assert_eq!(loaded.is_set(&path), !is_ours, "{path}");
    }
}

#[test]
fn the_published_configurations_load_as_written() {
    let control_plane = r#"
server:
  host: "127.0.0.1"
  port: 7423

providers:
  default: "mock"
  mock:
    enabled: true
  docker:
    enabled: false
  firecracker:
    enabled: false

auth:
  api_key: "dev-api-key-dev-api-key-dev-api-key"
  admin_api_key: "dev-admin-key-dev-admin-key-dev"
  worker_token: "dev-worker-token-dev-worker-token"
  worker_tokens:
    worker-a: "dev-worker-a-token-dev-worker-a-token"
  admin_fallback_enabled: false

database:
  driver: "sqlite"
  path: "/tmp/stacyvm-remote-worker-staging.db"
"#;
    let worker = r#"
worker:
  id: "worker-a"
  control_plane_url: "http://127.0.0.1:7423"
  listen_addr: "127.0.0.1:7430"
  preview_domain: "localhost"
  heartbeat_interval: "2s"

providers:
  default: "mock"
  mock:
    enabled: true
  docker:
    enabled: false
  firecracker:
    enabled: false

auth:
  worker_token: "dev-worker-a-token-dev-worker-a-token"
"#;
    for text in [control_plane, worker] {
        let (_dir, options) = file(text);
        let path = options.file.clone().unwrap();
        let named = env(&[("STACYVM_CONFIG", path.to_str().unwrap())]);
        let loaded = load_served(&LoadOptions::default(), &named).unwrap();
        assert_eq!(loaded.file, Some(path));
        assert_eq!(loaded.config.providers.default, "mock");
        assert!(loaded.config.providers.mock.enabled);
    }
    let loaded = yaml(control_plane).unwrap();
    assert_eq!(weak_keys(&loaded.config), ["auth.admin_api_key is shorter than 32 bytes"]);
}

#[test]
fn nothing_at_all_is_a_configuration() {
    for text in ["", "\n", "# nothing\n", "auth:\n", "null\n"] {
        let loaded = yaml(text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        assert_eq!(loaded.config.server.host, "127.0.0.1");
        assert_eq!(loaded.config.defaults.image, "host");
        assert!(loaded.config.database.path.ends_with("/stacyvm.db"));
    }
}

#[test]
fn keys_open_the_host() {
    assert_eq!(yaml("auth: {api_key: k}").unwrap().config.server.host, "0.0.0.0");
    assert_eq!(yaml("auth: {admin_api_key: k}").unwrap().config.server.host, "0.0.0.0");
    assert_eq!(yaml("auth: {worker_token: k}").unwrap().config.server.host, "127.0.0.1");
}

#[test]
fn unknown_keys_are_errors_with_a_suggestion() {
    assert!(problems("server: {prot: 1}").contains("did you mean `server.port`"));
    assert!(problems("servr: {port: 1}").contains("did you mean `server`"));
    assert!(problems("api_key: x").contains("did you mean `auth.api_key`"));
    assert!(problems("auth: {apikey: x}").contains("did you mean `auth.api_key`"));
    assert!(problems("zzzzzzzzzz: 1").contains("is not a key"));
    assert!(problems("server: 1").contains("is a section"));
    // All at once, not one a run.
    assert_eq!(problems("server: {prot: 1, hots: 2}").lines().count(), 2);
}

#[test]
fn wrong_values_are_named() {
    for (text, part) in [
        ("server: {port: 99999}", "`server.port` must not be larger than 65535"),
        ("server: {port: web}", "`server.port` is not a whole number"),
        ("defaults: {max_sandboxes: -1}", "must not be negative"),
        ("defaults: {ttl: -5m}", "must not be negative"),
        ("defaults: {ttl: 30}", "is not a duration"),
        ("defaults: {ttl: soon}", "is not a duration"),
        ("defaults: {spawn_overflow: drop}", "is not one of: reject, queue"),
        ("rate_limit: {key_by: moon}", "is not one of"),
        ("database: {driver: mysql}", "is not one of: sqlite, postgres"),
        ("server: {cors_allowed_origins: [\"https://a.example/x\"]}", "is neither * nor an origin"),
        ("auth: {api_key: 12345}", "write it in quotes"),
        ("auth: {enabled: maybe}", "is neither true nor false"),
        ("data_dir: here", "must be an absolute path"),
        ("worker: {id: \"a b\"}", "`worker.id`"),
        ("server: {host: \"a b\"}", "`server.host`"),
        ("[1, 2]", "is not a mapping"),
        ("a: b: c", "not YAML"),
        ("server: {port: 1}\nserver: {port: 2}", "not YAML"),
        ("server: {host: a, HOST: b}", "is there twice"),
    ] {
        assert!(problems(text).contains(part), "{text}: {}", problems(text));
    }
}

#[test]
fn an_error_shows_no_secret() {
    let text = problems("auth:\n  api_key: \"topsecret\n  x: [");
    assert!(!text.contains("topsecret"), "{text}");
}

#[test]
fn bug_48_case_matters_only_where_the_user_chose_the_name() {
    let text = "Auth:\n  Worker_Tokens:\n    Host-A.Example.COM: t\nimages:\n  aliases:\n    \
                \"Alpine:Latest\": host\n";
    let loaded = yaml(text).unwrap();
    let ids: Vec<_> = loaded.config.auth.worker_tokens.keys().collect();
    assert_eq!(ids, ["Host-A.Example.COM"]);
    assert_eq!(loaded.config.images.aliases["Alpine:Latest"], "host");
}

#[test]
fn variables_stand_above_the_file() {
    let pairs = [
        ("STACYVM_SERVER_PORT", "1234"),
        ("STACYVM_SERVER_CORS_ALLOWED_ORIGINS", "https://a.example, https://b.example"),
        ("STACYVM_LOGGING_LEVEL", ""),
        ("STACYVM_AUTH_API_KEY", "12345"),
        ("STACYVM_PROVIDERS_NATIVE_PIDS_LIMIT", "77"),
        ("STACYVM_API_KEY", "the client's"),
    ];
    let loaded = yaml_env("server: {port: 1}\nlogging: {level: debug}", &pairs).unwrap();
    let config = &loaded.config;
    assert_eq!(config.server.port, 1234);
    assert_eq!(config.server.cors_allowed_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(config.logging.level.as_str(), "debug");
    assert!(config.auth.api_key.matches("12345"));
    assert_eq!(config.providers.native.pids_limit, 77);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert!(loaded.is_set("server.port") && !loaded.is_set("server.host"));
}

#[test]
fn unknown_variables_only_warn() {
    let pairs = [
        ("STACYVM_SERVICE_HOST", "10.0.0.1"),
        ("STACYVM_SERVER_PROT", "1"),
        ("STACYVM_AUTH_WORKER_TOKENS", "a=b"),
    ];
    let warnings = yaml_env("", &pairs).unwrap().warnings.join("\n");
    assert_eq!(warnings.lines().count(), 3, "{warnings}");
    assert!(warnings.contains("STACYVM_SERVICE_HOST"));
    assert!(warnings.contains("is it STACYVM_SERVER_PORT?"));
    assert!(warnings.contains("only be set in the file"));
    assert!(yaml_env("", &[("STACYVM_SERVER_PORT", "many")]).is_err());
}

#[test]
fn what_is_not_served_is_refused_by_name() {
    for (text, key) in [
        ("auth: {oidc_issuer: \"https://i.example\"}", "auth.oidc_issuer"),
        ("auth: {oidc_enabled: true}", "auth.oidc_enabled"),
        ("auth: {oidc_admin_groups: [a]}", "auth.oidc_admin_groups"),
        ("rate_limit: {enabled: true}", "rate_limit.enabled"),
        ("defaults: {spawn_overflow: queue}", "defaults.spawn_overflow"),
        ("pool: {enabled: true}", "pool.enabled"),
        ("database: {driver: postgres, dsn: x}", "database.driver"),
        ("providers: {default: docker}", "providers.default"),
        ("providers: {default: dokcer}", "providers.default"),
        ("providers: {e2b: {enabled: true}}", "providers.e2b.enabled"),
        ("worker: {rpc_tls: {enabled: true}}", "worker.rpc_tls.enabled"),
    ] {
        let loaded = yaml(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let keys: Vec<_> = unserved(&loaded).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [key], "{text}");
        let (_dir, options) = file(text);
        let error = load_served(&options, &env(&[])).err().unwrap().to_string();
        assert!(error.contains(key), "{error}");
        let failed = lint(&loaded, false);
        assert!(failed.iter().any(|c| c.severity == Severity::Fail && c.name == key), "{text}");
    }
}

#[test]
fn switching_on_an_absent_provider_is_said() {
    let text = "providers: {docker: {enabled: true}, firecracker: {enabled: false}}";
    assert_eq!(absent_providers(&yaml(text).unwrap()).len(), 1);
    assert!(absent_providers(&yaml("").unwrap()).is_empty());
}

#[test]
fn secrets_come_from_files_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "  a-token\n").unwrap();
    let text = format!("auth: {{worker_token_file: {}}}", path.display());
    assert!(yaml(&text).unwrap().config.auth.worker_token.matches("a-token"));
    let both = format!("auth: {{worker_token: x, worker_token_file: {}}}", path.display());
    assert!(problems(&both).contains("are both set"));
    std::fs::write(&path, " \n").unwrap();
    assert!(problems(&text).contains("is empty"));
    std::fs::remove_file(&path).unwrap();
    assert!(problems(&text).contains("cannot be read"));
}

#[test]
fn a_named_file_must_exist_and_be_small() {
    let missing = LoadOptions {
        file: Some(PathBuf::from("/nonexistent/stacyvm.yaml")),
        overrides: Vec::new(),
    };
    let error = load(&missing, &env(&[])).err().unwrap().to_string();
    assert!(error.contains("/nonexistent/stacyvm.yaml"), "{error}");
    assert!(problems(&format!("# {}", "x".repeat(1 << 20))).contains("larger than 1 MiB"));
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let refs = vec![format!("*a{}", i - 1); 10].join(", ");
        text.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    assert!(problems(&text).contains("not YAML"));
}

#[test]
fn what_is_shown_holds_no_secret() {
    let text = "auth: {api_key: s3cret-a, worker_tokens: {w: s3cret-b}, \
                worker_signing_keys: [s3cret-c], worker_signing_key: s3cret-d}\n\
                database: {dsn: \"postgres://u:s3cret-e@h/d\"}\n\
                providers: {e2b: {api_key: s3cret-f}, custom: {api_key: s3cret-g}}";
    let shown = shown(&yaml(text).unwrap().config).to_string();
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(shown.contains("[redacted]") && shown.contains("\"api_key\""));
}

#[test]
fn what_is_shown_loads_again() {
    let first = yaml("server: {port: 9}\ndefaults: {ttl: 90s}").unwrap();
    let text = serde_saphyr::to_string(&shown(&first.config)).unwrap();
    let second = yaml(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(shown(&first.config), shown(&second.config));
}

#[test]
fn lint_grades_by_production() {
    let count = |text: &str, production: bool, severity: Severity| {
        lint(&yaml(text).unwrap(), production).iter().filter(|c| c.severity == severity).count()
    };
    assert_eq!(count("", false, Severity::Fail), 0);
    assert!(count("", false, Severity::Warn) >= 6);
    assert!(count("", true, Severity::Fail) >= 6);
    let good = "auth: {enabled: true, api_key: 0123456789abcdef0123456789abcdef, admin_api_key: \
                ffffffffffffffff0123456789abcdef, admin_fallback_enabled: false}\n\
                server: {cors_allowed_origins: [\"https://a.example\"]}\n\
                defaults: {max_sandboxes: 9, max_sandboxes_per_owner: 3, default_exec_timeout: 1m}";
    assert_eq!(count(good, true, Severity::Fail), 0, "{:?}", lint(&yaml(good).unwrap(), true));
    assert_eq!(count(good, true, Severity::Warn), 0);
    let names: Vec<_> = lint(&yaml("").unwrap(), false).into_iter().map(|c| c.name).collect();
    assert_eq!(names[..4], ["config", "auth.enabled", "auth.api_key", "auth.admin_api_key"]);
}

#[test]
fn registries_are_hosts_or_mappings_with_a_key() {
    let text = "images:\n  registries:\n    - ghcr.io\n    - host: http://localhost:5000\n      username: bob\n      password: open sesame\n      ca_file: /etc/ca.pem\n";
    let loaded = yaml(text).unwrap();
    let registries = &loaded.config.images.registries;
    assert_eq!((registries[0].host.as_str(), registries[1].username.as_str()), ("ghcr.io", "bob"));
    assert_eq!(registries[1].password.reveal(), "open sesame");
    assert_eq!(registries[1].ca_file.to_str(), Some("/etc/ca.pem"));
    let shown = shown(&loaded.config).to_string();
    assert!(shown.contains("http://localhost:5000") && !shown.contains("open sesame"), "{shown}");
    for bad in ["[{username: bob}]", "[{host: a, key: b}]", "[\"a/b\"]", "[\"http://u:p@a\"]"] {
        let text = format!("images: {{registries: {bad}}}");
        let error = yaml(&text).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("images.registries"), "{bad}: {error}");
    }
    let by_variable = yaml_env("", &[("STACYVM_IMAGES_REGISTRIES", "a.b, *")]).unwrap();
    assert_eq!(by_variable.config.images.registries.len(), 2);
}

fn refused(text: &str) -> String {
    yaml(text).err().unwrap_or_else(|| panic!("{text}: not refused")).to_string()
}

#[test]
fn a_warm_pool_is_a_number_or_a_list_of_pools() {
    let text = "defaults:\n  warm_pool:\n    - count: 8\n    - image: python:3.12\n      memory_mb: 2048\n      count: 4\n";
    let loaded = yaml(text).unwrap_or_else(|e| panic!("{e}"));
    let pools = &loaded.config.defaults.warm_pool;
    assert_eq!((pools[0].count, pools[0].image.as_str()), (8, ""));
    assert_eq!((pools[1].count, pools[1].memory_mb), (4, 2048));
    assert_eq!(pools[1].image, "python:3.12");
    let shown = Setting::show(pools);
    assert_eq!(
        shown[1],
        serde_json::json!({"image": "python:3.12", "memory_mb": 2048, "count": 4})
    );
    for (text, count) in [("8", 1), ("0", 0), ("[]", 0)] {
        let loaded = yaml(&format!("defaults: {{warm_pool: {text}}}")).unwrap();
        assert_eq!(loaded.config.defaults.warm_pool.len(), count, "{text}");
    }
    let one = yaml("defaults: {warm_pool: 8}").unwrap().config.defaults.warm_pool;
    assert_eq!(Setting::show(&one), 8);
    for bad in ["many", "-1", "5000", "{image: a}", "[a]", "[{image: a}]", "[{count: 1, size: 2}]"]
    {
        let error = refused(&format!("defaults: {{warm_pool: {bad}}}"));
        assert!(error.contains("defaults.warm_pool"), "{bad}: {error}");
    }
    let error = refused("defaults: {warm_pool_max_age: 1s}");
    assert!(error.contains("warm_pool_max_age"), "{error}");
}
