//! Which entry of an index is for which machine (image-spec, image-index.md).
//!
//! The first entry that fits wins. Where a processor runs several variants, the best one is asked for first.

use oci_spec::image::{Arch, Descriptor, ImageIndex, Os, Platform, PlatformBuilder};

use super::manifest::is_index;
use crate::error::{Error, Result};

/// The platform that this program was built for, which is the one it runs on.
pub fn host() -> Platform {
    of("linux", std::env::consts::ARCH, None)
}

fn of(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
    let builder = PlatformBuilder::default().os(Os::from(os)).architecture(Arch::from(goarch(architecture)));
    let builder = match variant {
        Some(variant) => builder.variant(variant),
        None => builder,
    };
    builder.build().unwrap_or_default()
}

/// Go's name for an architecture that others (uname(2), Rust) call differently.
fn goarch(name: &str) -> &str {
    match name {
        "x86_64" | "x86-64" => "amd64",
        "x86" | "i386" | "i686" => "386",
        "aarch64" => "arm64",
        "armhf" | "armel" => "arm",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Reads `OS[/ARCH[/VARIANT]]` or `ARCH`, as `--platform` takes it.
pub fn parse(text: &str) -> Result<Platform> {
    let wrong =
        || Error::new(format!("{text:?} is no platform")).next("write OS/ARCH[/VARIANT]: linux/arm64");
    let parts: Vec<&str> = text.split('/').collect();
    let word = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if !parts.iter().all(word) {
        return Err(wrong());
    }
    let host = host();
    match parts[..] {
        ["linux"] => Ok(host),
        [architecture] if known(architecture) => Ok(of("linux", architecture, None)),
        [os, architecture] => Ok(of(os, architecture, None)),
        [os, architecture, variant] => Ok(of(os, architecture, Some(variant))),
        _ => Err(wrong()),
    }
}

fn known(architecture: &str) -> bool {
    !matches!(Arch::from(goarch(architecture)), Arch::Other(_))
}

/// `OS/ARCH[/VARIANT]`.
pub fn show(platform: &Platform) -> String {
    let variant = platform.variant().as_ref().map_or(String::new(), |variant| format!("/{variant}"));
    format!("{}/{}{variant}", platform.os(), platform.architecture())
}

/// The entry for a platform: of the best variant the first; else an index within the index, or an entry, that names no
/// platform at all (whoever follows it compares the image's configuration).
pub fn choose<'i>(index: &'i ImageIndex, wanted: &Platform) -> Option<&'i Descriptor> {
    let images = || {
        // Attestations and signatures ride along as entries that are no images.
        let rides = |entry: &&Descriptor| {
            let notes = entry.annotations().as_ref();
            let attests = notes.is_some_and(|notes| notes.contains_key("vnd.docker.reference.type"));
            is_index(entry.media_type()).is_some() && entry.artifact_type().is_none() && !attests
        };
        index.manifests().iter().filter(rides)
    };
    let fitting = variants(wanted).into_iter().find_map(|variant| {
        images().find(|entry| entry.platform().as_ref().is_some_and(|its| fits(its, wanted, &variant)))
    });
    fitting.or_else(|| images().find(|entry| entry.platform().is_none()))
}

/// Whether an image made for `its` runs where `wanted` does.
pub fn runs(its: &Platform, wanted: &Platform) -> bool {
    variants(wanted).iter().any(|variant| fits(its, wanted, variant))
}

fn fits(its: &Platform, wanted: &Platform, variant: &str) -> bool {
    let mine = its.variant().as_deref().unwrap_or_default();
    let mine = if mine.is_empty() { plain(its.architecture()) } else { mine };
    its.os() == wanted.os() && its.architecture() == wanted.architecture() && mine == variant
}

/// The variant that is meant where none is named.
fn plain(architecture: &Arch) -> &'static str {
    match architecture {
        Arch::Amd64 => "v1",
        Arch::ARM => "v7",
        Arch::ARM64 => "v8",
        _ => "",
    }
}

/// The variants that a platform runs, the best first. Each runs what is below it.
fn variants(wanted: &Platform) -> Vec<String> {
    let architecture = wanted.architecture();
    let variant =
        wanted.variant().as_deref().filter(|variant| !variant.is_empty()).unwrap_or(plain(architecture));
    let (least, prefix, number) = match architecture {
        Arch::Amd64 => (1, "v", variant.strip_prefix('v')),
        Arch::ARM => (5, "v", variant.strip_prefix('v')),
        // v8, v8.1 ... v9: the minor numbers go down to the plain one.
        Arch::ARM64 => (1, "v8.", variant.strip_prefix("v8.")),
        _ => (0, "", None),
    };
    let mut found: Vec<String> = match number.and_then(|digits| digits.parse::<u8>().ok()) {
        Some(best) if best <= 32 => (least..=best).rev().map(|number| format!("{prefix}{number}")).collect(),
        _ => vec![variant.to_owned()],
    };
    if *architecture == Arch::ARM64 && variant != "v8" {
        found.push("v8".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index whose entries' sizes are their places, from 0.
    fn index(platforms: &[&str]) -> ImageIndex {
        let hex = "0".repeat(64);
        let entries: Vec<String> = platforms
            .iter()
            .enumerate()
            .map(|(size, text)| {
                let parts: Vec<&str> = text.split('/').collect();
                let variant = parts.get(2).map_or(String::new(), |v| format!(r#","variant":"{v}""#));
                let platform = match parts[..] {
                    [""] => String::new(),
                    _ => {
                        format!(
                            r#","platform":{{"os":"{}","architecture":"{}"{variant}}}"#,
                            parts[0], parts[1]
                        )
                    }
                };
                let media_type = "application/vnd.oci.image.manifest.v1+json";
                format!(r#"{{"mediaType":"{media_type}","digest":"sha256:{hex}","size":{size}{platform}}}"#)
            })
            .collect();
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
        serde_json::from_str(&text).expect("an index")
    }

    fn chosen(platforms: &[&str], wanted: &str) -> Option<u64> {
        choose(&index(platforms), &parse(wanted).expect(wanted)).map(Descriptor::size)
    }

    #[test]
    fn the_first_that_fits() {
        let many = ["unknown/unknown", "windows/amd64", "linux/arm64/v8", "linux/amd64", "linux/amd64"];
        assert_eq!(chosen(&many, "linux/amd64"), Some(3));
        assert_eq!(chosen(&many, "amd64"), Some(3));
        assert_eq!(chosen(&many, "x86_64"), Some(3));
        assert_eq!(chosen(&many, "linux/arm64"), Some(2));
        assert_eq!(chosen(&many, "linux/s390x"), None);
    }

    #[test]
    fn the_best_variant() {
        let arm = ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"];
        assert_eq!(chosen(&arm, "linux/arm/v7"), Some(2));
        assert_eq!(chosen(&arm, "linux/arm"), Some(2));
        assert_eq!(chosen(&arm, "linux/arm/v6"), Some(1));
        assert_eq!(chosen(&arm[1..], "linux/arm/v5"), None);
        let amd64 = ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"];
        assert_eq!(chosen(&amd64, "linux/amd64"), Some(2));
        assert_eq!(chosen(&amd64, "linux/amd64/v4"), Some(0));
        assert_eq!(chosen(&amd64, "linux/amd64/v2"), Some(1));
        assert_eq!(chosen(&["linux/arm64", "linux/arm64/v8.2"], "linux/arm64/v8.4"), Some(1));
        assert_eq!(chosen(&["linux/arm64/v9", "linux/arm64/v8"], "linux/arm64"), Some(1));
        assert_eq!(chosen(&["linux/riscv64/rva23u64", "linux/riscv64"], "linux/riscv64"), Some(1));
    }

    #[test]
    fn an_entry_without_a_platform_is_the_last_resort() {
        assert_eq!(chosen(&["", "linux/amd64"], "linux/amd64"), Some(1));
        assert_eq!(chosen(&["linux/arm64", ""], "linux/amd64"), Some(1));
    }

    #[test]
    fn platforms_as_text() {
        assert_eq!(show(&parse("linux/arm/v7").expect("parses")), "linux/arm/v7");
        assert_eq!(show(&parse("aarch64").expect("parses")), "linux/arm64");
        for text in ["", "/", "linux/", "a b/c", "linux/amd64/v1/x", "nonsense"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
