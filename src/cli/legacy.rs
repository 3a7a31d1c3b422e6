//! What: `-o`, the options of the C daemon, turned into today's.
//!
//! In: comma-separated lists, as typed, of bytes that need not be text; a doubled comma is a comma
//! within an element, as libvirt writes it. Out: the same [`Options`] as if the new spellings had
//! been used; a later element wins over an earlier one. An element that is not known is an error
//! of the command line, as is a value that is none; what this daemon has no use for is accepted
//! with a warning.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::ValueEnum;

use super::options::{Cache, Negotiation, Options};
use super::process_options::SandboxMode;
use super::share_options::{parse_seconds, parse_xattr_map};

/// What becomes of an element.
enum Outcome {
    /// It has set an option.
    Applied,
    /// It is one of the C daemon's that changes nothing here, for this reason.
    Ineffective(&'static str),
    /// Nobody knows it.
    Unknown,
}

/// Applies all `-o` elements to `options`, and returns the warnings about those that have no
/// effect.
///
/// # Errors
/// The message for the user, which names the element.
pub(super) fn apply(options: &mut Options) -> Result<Vec<String>, String> {
    let elements: Vec<OsString> = options
        .compat
        .iter()
        .flat_map(|list| split(list.as_bytes()))
        .collect();
    let mut warnings = Vec::new();
    for element in &elements {
        let shown = element.to_string_lossy();
        let outcome = match split_once(element) {
            Some((name, value)) => apply_value(options, &name.to_string_lossy(), value)
                .map_err(|why| format!("invalid value in '-o {shown}': {why}"))?,
            None => apply_flag(options, &shown),
        };
        match outcome {
            Outcome::Applied => (),
            Outcome::Ineffective(why) => {
                warnings.push(format!("-o {shown} has no effect: {why}; leave it out"));
            }
            Outcome::Unknown => {
                return Err(format!(
                    "invalid compatibility option '-o {shown}'; use the options that begin with -- \
                     (see --help). A comma within a value is doubled"
                ));
            }
        }
    }
    Ok(warnings)
}

/// The elements of one list: separated by commas, with doubled ones for commas of their own.
fn split(list: &[u8]) -> Vec<OsString> {
    let mut elements = Vec::new();
    let mut element = Vec::new();
    let mut bytes = list.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b',' && bytes.next_if_eq(&b',').is_none() {
            elements.push(OsString::from_vec(std::mem::take(&mut element)));
        } else {
            element.push(byte);
        }
    }
    elements.push(OsString::from_vec(element));
    elements
}

/// Name and value of an element that has both.
fn split_once(element: &OsStr) -> Option<(&OsStr, &OsStr)> {
    let bytes = element.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=')?;
    let (name, rest) = bytes.split_at(at);
    let value = rest.strip_prefix(b"=")?;
    Some((OsStr::from_bytes(name), OsStr::from_bytes(value)))
}

fn apply_value(options: &mut Options, name: &str, value: &OsStr) -> Result<Outcome, String> {
    let text = &*value.to_string_lossy();
    let possible = |values: &str| Err(format!("possible are {values}"));
    match name {
        "source" => options.shared_dir = Some(PathBuf::from(value)),
        "xattrmap" => options.metadata.xattrmap = Some(parse_xattr_map(value.to_owned())?),
        "modcaps" => options.process.modcaps = Some(text.to_owned()),
        "cache" => {
            options.caching.cache = match text {
                "none" => Cache::Never,
                "auto" => Cache::Auto,
                "always" => Cache::Always,
                "metadata" => Cache::Metadata,
                _ => return possible("auto, always, none and metadata"),
            };
        }
        "loglevel" | "log_level" => {
            options.process.log_level = match text {
                "debug" => log::LevelFilter::Debug,
                "info" => log::LevelFilter::Info,
                "warn" => log::LevelFilter::Warn,
                "err" => log::LevelFilter::Error,
                _ => return possible("debug, info, warn and err"),
            };
        }
        "sandbox" => {
            options.process.sandbox = match SandboxMode::from_str(text, false) {
                Ok(mode) if mode != SandboxMode::None => mode,
                _ => return possible("namespace and chroot (use --sandbox none for none)"),
            };
        }
        "timeout" => options.caching.timeout = Some(parse_seconds(text)?),
        "max_idle_threads" => {
            return match text.parse::<u32>() {
                Ok(_) => Ok(Outcome::Ineffective(
                    "the size of the pool is set with --thread-pool-size",
                )),
                Err(_) => Err("it takes a number".to_owned()),
            };
        }
        _ => return Ok(Outcome::Unknown),
    }
    Ok(Outcome::Applied)
}

/// Flags come in pairs: `NAME` and `no_NAME`, but for two.
fn apply_flag(options: &mut Options, element: &str) -> Outcome {
    match element {
        "debug" => {
            options.process.log_level = log::LevelFilter::Debug;
            return Outcome::Applied;
        }
        "allow_root" => return Outcome::Ineffective("the guest's root is always allowed"),
        _ => (),
    }
    let (name, on) = match element.strip_prefix("no_") {
        Some(name) => (name, false),
        None => (element, true),
    };
    let negotiation = if on {
        Negotiation::Always
    } else {
        Negotiation::Never
    };
    match name {
        "xattr" => options.metadata.xattr = on,
        "readdirplus" => options.caching.no_readdirplus = !on,
        "writeback" => options.caching.writeback = on,
        "allow_direct_io" => options.semantics.allow_direct_io = on,
        "announce_submounts" => options.semantics.no_announce_submounts = !on,
        "killpriv_v2" => {
            options.metadata.killpriv_v2 = on;
            options.metadata.no_killpriv_v2 = !on;
        }
        "posix_acl" => options.metadata.posix_acl = negotiation,
        "security_label" => options.metadata.security_label = negotiation,
        "posix_lock" => options.semantics.posix_lock = on,
        "flock" => options.semantics.flock = on,
        _ => return Outcome::Unknown,
    }
    Outcome::Applied
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::time::Duration;

    fn applied(list: &[&str]) -> Result<Options, String> {
        applied_bytes(&list.iter().map(|text| text.as_bytes()).collect::<Vec<_>>())
            .map(|(options, _)| options)
    }

    fn applied_bytes(list: &[&[u8]]) -> Result<(Options, Vec<String>), String> {
        let mut arguments: Vec<&OsStr> = ["virtiofsd", "--socket-path", "s"].map(OsStr::new).into();
        for element in list {
            arguments.extend([OsStr::new("-o"), OsStr::from_bytes(element)]);
        }
        let mut options = Options::try_parse_from(arguments).map_err(|error| error.to_string())?;
        apply(&mut options).map(|warnings| (options, warnings))
    }

    #[test]
    fn doubled_commas_are_part_of_a_value() {
        for (list, expected) in [
            (&b"source=/srv/a,,b c,xattr"[..], &b"/srv/a,b c"[..]),
            (b"xattr,source=,,,,", b",,"),
            (b"source=/a,,,xattr", b"/a,"),
            (b"source=/a=b,xattr", b"/a=b"),
            (b"source=/\xff\xfe,xattr", b"/\xff\xfe"),
        ] {
            let (options, _) = applied_bytes(&[list]).unwrap();
            let source = options.shared_dir.unwrap();
            assert_eq!(source.as_os_str().as_bytes(), expected);
            assert!(options.metadata.xattr);
        }
    }

    #[test]
    fn elements_without_effect_are_accepted_with_a_warning() {
        let (_, warnings) = applied_bytes(&[b"max_idle_threads=3,allow_root,xattr"]).unwrap();
        let [threads, root] = &warnings[..] else {
            panic!("two warnings: {warnings:?}");
        };
        assert!(threads.contains("max_idle_threads=3 has no effect"));
        assert!(root.contains("allow_root has no effect"));
    }

    #[test]
    fn elements_set_what_the_new_spellings_set() {
        let options = applied(&[
            "source=/srv,cache=none,xattr,no_readdirplus,writeback,allow_direct_io",
            "posix_acl,security_label,no_announce_submounts,timeout=2.5,loglevel=err",
            "posix_lock,flock,no_killpriv_v2,sandbox=chroot,modcaps=+chown:-mknod",
        ])
        .unwrap();
        assert_eq!(options.shared_dir, Some(PathBuf::from("/srv")));
        assert_eq!(options.caching.cache, Cache::Never);
        assert_eq!(options.caching.timeout, Some(Duration::from_millis(2500)));
        assert_eq!(options.process.log_level, log::LevelFilter::Error);
        assert_eq!(options.process.sandbox, SandboxMode::Chroot);
        assert_eq!(options.metadata.posix_acl, Negotiation::Always);
        assert_eq!(options.metadata.security_label, Negotiation::Always);
        assert_eq!(options.process.modcaps.as_deref(), Some("+chown:-mknod"));
        let on = [
            options.metadata.xattr,
            options.caching.no_readdirplus,
            options.caching.writeback,
            options.semantics.allow_direct_io,
            options.semantics.no_announce_submounts,
            options.semantics.posix_lock,
            options.semantics.flock,
            options.metadata.no_killpriv_v2,
        ];
        assert_eq!(on, [true; 8]);
    }

    #[test]
    fn the_last_element_wins() {
        let options =
            applied(&["xattr,no_xattr", "no_posix_lock,cache=auto,cache=always"]).unwrap();
        assert!(!options.metadata.xattr && !options.semantics.posix_lock);
        assert_eq!(options.caching.cache, Cache::Always);
    }

    #[test]
    fn unknown_elements_and_values_are_refused_by_name() {
        for (element, said) in [
            ("nonsense", "-o nonsense"),
            ("", "-o "),
            ("cache=never", "auto, always, none and metadata"),
            ("sandbox=none", "namespace and chroot"),
            ("timeout=-1", "-o timeout=-1"),
            ("xattr=1", "-o xattr=1"),
            ("max_idle_threads=x", "takes a number"),
            ("max_idle_threads", "-o max_idle_threads"),
            ("xattr,", "'-o '"),
            ("xattr,,no_xattr", "-o xattr,no_xattr"),
            ("no_allow_root", "-o no_allow_root"),
        ] {
            let message = applied(&[element]).unwrap_err();
            assert!(message.contains(said), "{element}: {message}");
        }
    }
}
