//! What: `-o`, the options of the C daemon, turned into today's.
//!
//! In: comma-separated lists, as typed. Out: the same [`Options`] as if the new spellings had been
//! used; a later element wins over an earlier one. An element that is not known is an error of
//! the command line, as is a value that is none.

use std::path::PathBuf;

use clap::ValueEnum;

use super::options::{Cache, Negotiation, Options, SandboxMode};
use super::share_options::{parse_seconds, parse_xattr_map};

/// Applies all `-o` elements to `options`.
///
/// # Errors
/// The message for the user, which names the element.
pub(super) fn apply(options: &mut Options) -> Result<(), String> {
    let elements: Vec<String> = options
        .compat
        .iter()
        .flat_map(|list| list.split(','))
        .map(str::to_owned)
        .collect();
    for element in &elements {
        let known = match element.split_once('=') {
            Some((name, value)) => apply_value(options, name, value)?,
            None => apply_flag(options, element),
        };
        if !known {
            return Err(format!("invalid compatibility option '-o {element}'"));
        }
    }
    Ok(())
}

fn bad_value(name: &str, value: &str, possible: &str) -> String {
    format!("invalid value in '-o {name}={value}': possible are {possible}")
}

fn apply_value(options: &mut Options, name: &str, value: &str) -> Result<bool, String> {
    let bad = |possible| bad_value(name, value, possible);
    match name {
        "source" => options.shared_dir = Some(PathBuf::from(value)),
        "xattrmap" => {
            let map = parse_xattr_map(value.into());
            options.metadata.xattrmap =
                Some(map.map_err(|why| format!("invalid value in '-o {name}={value}': {why}"))?);
        }
        "cache" => {
            options.caching.cache = match value {
                "none" => Cache::Never,
                "auto" => Cache::Auto,
                "always" => Cache::Always,
                "metadata" => Cache::Metadata,
                _ => return Err(bad("auto, always, none and metadata")),
            };
        }
        "loglevel" | "log_level" => {
            options.log_level = match value {
                "debug" => log::LevelFilter::Debug,
                "info" => log::LevelFilter::Info,
                "warn" => log::LevelFilter::Warn,
                "err" => log::LevelFilter::Error,
                _ => return Err(bad("debug, info, warn and err")),
            };
        }
        "sandbox" => {
            options.sandbox = match SandboxMode::from_str(value, false) {
                Ok(mode) if mode != SandboxMode::None => mode,
                _ => return Err(bad("namespace and chroot")),
            };
        }
        "timeout" => {
            let seconds = parse_seconds(value);
            options.caching.timeout = Some(
                seconds.map_err(|why| format!("invalid value in '-o {name}={value}': {why}"))?,
            );
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Flags come in pairs: `NAME` and `no_NAME`.
fn apply_flag(options: &mut Options, element: &str) -> bool {
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
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::time::Duration;

    fn applied(list: &[&str]) -> Result<Options, String> {
        let mut arguments = vec!["virtiofsd", "--socket-path", "s"];
        for element in list {
            arguments.extend(["-o", element]);
        }
        let mut options = Options::try_parse_from(arguments).map_err(|error| error.to_string())?;
        apply(&mut options).map(|()| options)
    }

    #[test]
    fn elements_set_what_the_new_spellings_set() {
        let options = applied(&[
            "source=/srv,cache=none,xattr,no_readdirplus,writeback,allow_direct_io",
            "posix_acl,security_label,no_announce_submounts,timeout=2.5,loglevel=err",
            "posix_lock,flock,no_killpriv_v2,sandbox=chroot",
        ])
        .unwrap();
        assert_eq!(options.shared_dir, Some(PathBuf::from("/srv")));
        assert_eq!(options.caching.cache, Cache::Never);
        assert_eq!(options.caching.timeout, Some(Duration::from_millis(2500)));
        assert_eq!(options.log_level, log::LevelFilter::Error);
        assert_eq!(options.sandbox, SandboxMode::Chroot);
        assert_eq!(options.metadata.posix_acl, Negotiation::Always);
        assert_eq!(options.metadata.security_label, Negotiation::Always);
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
            ("modcaps=+chown", "-o modcaps=+chown"),
        ] {
            let message = applied(&[element]).unwrap_err();
            assert!(message.contains(said), "{element}: {message}");
        }
    }
}
