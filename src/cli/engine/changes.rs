//! `--change`: the lines of a Dockerfile that set something in an image's config.

use oci_spec::image::Config;

use crate::error::{Error, Result};

/// Applies one line: `CMD ["sh"]`, `ENV A=b`, `LABEL a=b`, `USER 1000:1000`.
pub fn apply(config: &mut Config, line: &str) -> Result<()> {
    let wrong = |why: &str| {
        Error::new(format!("--change {line:?}: {why}"))
            .next("CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR, and its value")
    };
    let (word, rest) = line.trim().split_once([' ', '=']).ok_or_else(|| wrong("there is no value"))?;
    let rest = rest.trim();
    if rest.is_empty() {
        return Err(wrong("there is no value"));
    }
    match word.to_ascii_uppercase().as_str() {
        "CMD" => drop(config.set_cmd(Some(command(rest)))),
        "ENTRYPOINT" => drop(config.set_entrypoint(Some(command(rest)))),
        "USER" => drop(config.set_user(Some(rest.to_owned()))),
        "WORKDIR" => drop(config.set_working_dir(Some(rest.to_owned()))),
        "STOPSIGNAL" => drop(config.set_stop_signal(Some(rest.to_owned()))),
        "ENV" => {
            let mut env = config.env().clone().unwrap_or_default();
            for (key, value) in pairs(rest).ok_or_else(|| wrong("it is not KEY=value"))? {
                env.retain(|entry| entry.split('=').next() != Some(&key));
                env.push(format!("{key}={value}"));
            }
            config.set_env(Some(env));
        }
        "LABEL" => {
            let mut labels = config.labels().clone().unwrap_or_default();
            labels.extend(pairs(rest).ok_or_else(|| wrong("it is not KEY=value"))?);
            config.set_labels(Some(labels));
        }
        "EXPOSE" => {
            let mut ports = config.exposed_ports().clone().unwrap_or_default();
            ports.extend(
                rest.split_whitespace()
                    .map(|port| if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") }),
            );
            config.set_exposed_ports(Some(ports));
        }
        "VOLUME" => {
            let mut volumes = config.volumes().clone().unwrap_or_default();
            let listed = serde_json::from_str::<Vec<String>>(rest);
            volumes.extend(listed.unwrap_or_else(|_| rest.split_whitespace().map(str::to_owned).collect()));
            config.set_volumes(Some(volumes));
        }
        _ => return Err(wrong("the word is unknown")),
    }
    Ok(())
}

/// The exec form, a JSON array; anything else is for the shell.
fn command(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| ["/bin/sh", "-c", text].map(str::to_owned).to_vec())
}

/// `A=b C="d e"`, or the old form `A b c`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let first = text.split_whitespace().next()?;
    if !first.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (None, _) if c.is_whitespace() => words.push(String::new()),
            _ => words.last_mut()?.push(c),
        }
    }
    let words = words.into_iter().filter(|word| !word.is_empty());
    words
        .map(|word| word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
        .map(|pair| pair.filter(|(key, _)| !key.is_empty()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dockerfile_says() {
        let mut config = Config::default();
        for line in [
            "CMD [\"sh\", \"-c\", \"true\"]",
            "ENTRYPOINT /init now",
            "ENV A=b C=\"d e\"",
            "ENV A=c",
            "ENV OLD way",
            "LABEL x.y='z'",
            "USER 1000:1000",
            "WORKDIR /srv",
            "EXPOSE 80 53/udp",
            "VOLUME [\"/data\"]",
            "STOPSIGNAL SIGINT",
        ] {
            apply(&mut config, line).expect(line);
        }
        let text = |list: &Option<Vec<String>>| list.clone().unwrap_or_default().join("|");
        assert_eq!(text(config.cmd()), "sh|-c|true");
        assert_eq!(text(config.entrypoint()), "/bin/sh|-c|/init now");
        assert_eq!(text(config.env()), "C=d e|A=c|OLD=way");
        assert_eq!(text(config.exposed_ports()), "80/tcp|53/udp");
        assert_eq!(text(config.volumes()), "/data");
        assert_eq!(config.labels().clone().unwrap_or_default()["x.y"], "z");
        for line in ["", "CMD", "RUN true", "ENV =b", "ENV A"] {
            assert!(apply(&mut config, line).is_err(), "{line:?}");
        }
    }
}
