//! A PostgreSQL of Debian's package for all tests of a run, and an S3-compatible server for each.
//!
//! `COFFER_TEST_S3="endpoint region bucket access-key secret-key"` takes a running server instead, as `garage`.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;
use tokio_postgres::NoTls;

/// Stops PostgreSQL, and removes its folder, when the pipe to it is closed: when the tests end, however they do.
const KEEPER: &str = r#"
programs=$1 folder=$2
shift 2
"$programs/postgres" -D "$folder/data" -k "$folder" -c max_connections=400 -F "$@" >"$folder/log" 2>&1 &
pid=$!
read -r _
kill -INT $pid
wait $pid
rm -rf "$folder"
"#;

struct Postgres {
    folder: PathBuf,
    _keeper: Child,
}

static POSTGRES: OnceLock<Postgres> = OnceLock::new();
static DATABASES: AtomicU64 = AtomicU64::new(0);

/// Makes a database, and says how it is reached.
pub async fn database() -> String {
    let postgres = POSTGRES.get_or_init(|| start_postgres(&["-c", "listen_addresses="], &[]));
    database_in(postgres, "").await
}

/// Makes a database in a server, reached over its socket, with more words in the connection string.
async fn database_in(postgres: &Postgres, more: &str) -> String {
    let name = format!("t{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let server = format!("host={} user=coffer{more}", postgres.folder.display());
    let began = Instant::now();
    let client = loop {
        match tokio_postgres::connect(&format!("{server} dbname=postgres"), NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                break client;
            }
            Err(error) if began.elapsed() > Duration::from_secs(60) => {
                let log = std::fs::read_to_string(postgres.folder.join("log"));
                panic!(
                    "PostgreSQL does not start: {error}\n{}",
                    log.unwrap_or_default()
                );
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let create = format!("CREATE DATABASE {name} TEMPLATE template0");
    client.batch_execute(&create).await.expect("a database");
    format!("{server} dbname={name}")
}

/// Ends every connection to a database, as a restart of PostgreSQL does.
pub async fn cut_all_connections(database: &str) {
    let (client, connection) = tokio_postgres::connect(database, NoTls).await.unwrap();
    tokio::spawn(connection);
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    client.query(sql, &[]).await.unwrap();
}

/// A PostgreSQL that also listens on this machine, and speaks TLS there with a certificate for `localhost`.
pub struct Encrypted {
    /// How its database is reached over a socket, unencrypted.
    pub socket: String,
    /// The same over the network; `sslmode` is to be added.
    pub network: String,
    /// A file with the certificate.
    pub certificate: PathBuf,
    _server: Postgres,
}

impl Encrypted {
    pub async fn start() -> Encrypted {
        let names = vec!["localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let files = [
            ("server.crt", made.cert.pem()),
            ("server.key", made.key_pair.serialize_pem()),
        ];
        let port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            free.local_addr().expect("an address").port()
        };
        let port_is = format!("port={port}");
        let options = [
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            &port_is,
            "-c",
            "ssl=on",
            "-c",
            "ssl_cert_file=../server.crt",
            "-c",
            "ssl_key_file=../server.key",
        ];
        let server = start_postgres(&options, &files);
        let socket = database_in(&server, &format!(" port={port}")).await;
        let name = socket.rsplit(' ').next().unwrap_or_default();
        Encrypted {
            network: format!("host=localhost hostaddr=127.0.0.1 port={port} user=coffer {name}"),
            certificate: server.folder.join("server.crt"),
            socket,
            _server: server,
        }
    }
}

fn start_postgres(options: &[&str], files: &[(&str, String)]) -> Postgres {
    let programs = programs();
    let folder = tempfile::Builder::new()
        .prefix("coffer-pg")
        .tempdir()
        .expect("a folder")
        .keep();
    let user = unprivileged();
    if let Some((uid, gid)) = user {
        chown(&folder, Some(uid), Some(gid)).expect("the folder is given away");
    }
    for (name, contents) in files {
        let path = folder.join(name);
        let mut open = std::fs::OpenOptions::new();
        let file = open.write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(contents.as_bytes()));
        written.expect("a file");
        if let Some((uid, gid)) = user {
            chown(&path, Some(uid), Some(gid)).expect("the file is given away");
        }
    }
    let made = as_user(user, &programs.join("initdb"))
        .arg("-D")
        .arg(folder.join("data"))
        .args(["-U", "coffer", "-A", "trust", "-E", "UTF8"])
        .args(["--locale=C", "--no-sync"])
        .current_dir("/")
        .output()
        .expect("initdb runs");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "initdb: {said}");
    let mut keeper = as_user(user, Path::new("/bin/sh"))
        .args(["-c", KEEPER, "keeper"])
        .arg(&programs)
        .arg(&folder)
        .args(options)
        .current_dir("/")
        .stdin(Stdio::piped())
        .spawn()
        .expect("PostgreSQL starts");
    // Nothing is written: that it can be closed is what the pipe is for.
    if let Some(pipe) = &mut keeper.stdin {
        pipe.flush().expect("a pipe");
    }
    Postgres {
        folder,
        _keeper: keeper,
    }
}

/// Where the programs of the newest PostgreSQL are.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter();
    let versions = versions.flatten().flatten().map(|folder| folder.path());
    let newest = versions
        .filter(|path| path.join("bin/initdb").exists())
        .max_by_key(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.and_then(|name| name.parse::<u32>().ok())
        });
    let missing = "the tests of the provider's store need PostgreSQL: apt-get install postgresql";
    newest.expect(missing).join("bin")
}

/// Whom PostgreSQL runs as: it refuses root.
fn unprivileged() -> Option<(u32, u32)> {
    let id = |args: &[&str]| {
        let told = Command::new("id").args(args).output().ok()?;
        String::from_utf8(told.stdout).ok()?.trim().parse().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    let of = |user: &str| Some((id(&["-u", user])?, id(&["-g", user])?));
    Some(of("postgres").or_else(|| of("nobody")).expect("a user"))
}

fn as_user(user: Option<(u32, u32)>, program: &Path) -> Command {
    let Some((uid, gid)) = user else {
        return Command::new(program);
    };
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={uid}"))
        .arg(format!("--regid={gid}"))
        .arg("--clear-groups")
        .arg(program);
    command
}

/// An S3-compatible server with one bucket.
pub struct Objects {
    pub endpoint: String,
    pub region: String,
    pub bucket: String,
    pub prefix: String,
    pub access_key: String,
    pub secret_key: String,
    _folder: Option<TempDir>,
}

impl Objects {
    pub async fn start() -> Self {
        static PREFIXES: AtomicU64 = AtomicU64::new(0);
        let n = PREFIXES.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}-{n}/", std::process::id());
        if let Ok(given) = std::env::var("COFFER_TEST_S3") {
            let words: Vec<&str> = given.split_whitespace().collect();
            let [endpoint, region, bucket, access_key, secret_key] = words[..] else {
                panic!("COFFER_TEST_S3 is five words, not {}", words.len());
            };
            return Objects {
                endpoint: endpoint.into(),
                region: region.into(),
                bucket: bucket.into(),
                prefix,
                access_key: access_key.into(),
                secret_key: secret_key.into(),
                _folder: None,
            };
        }
        let folder = TempDir::new().expect("a folder");
        std::fs::create_dir(folder.path().join("bucket")).expect("a bucket");
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let files = s3s_fs::FileSystem::new(folder.path()).expect("a folder of buckets");
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single("key", "secret"));
        let service = service.build();
        // Ends with the test's runtime.
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let http = Builder::new(TokioExecutor::new());
                    let _ = http.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Objects {
            endpoint: format!("http://{address}"),
            region: "us-east-1".into(),
            bucket: "bucket".into(),
            prefix,
            access_key: "key".into(),
            secret_key: "secret".into(),
            _folder: Some(folder),
        }
    }
}
