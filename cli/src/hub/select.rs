//! Which of a repository's files make a model.
//!
//! In: the names that the hub lists. Out: the few that are fetched, each of them a plain name in the snapshot's folder.

/// Names the files that weights are spread over.
const INDEX: &str = "model.safetensors.index.json";
/// No setting, vocabulary or index is larger.
const LARGEST_TEXT: u64 = 64 << 20;
/// Whisper large in single precision is 6.2 GB.
const LARGEST_WEIGHTS: u64 = 32 << 30;

/// The files to fetch, the weights last: safetensors as Transformers writes them, else CTranslate2's, else the one file of
/// a repository that has one model in GGUF or ggml.
pub(super) fn files(listed: &[String]) -> Result<Vec<String>, String> {
    if let Some(hostile) = listed.iter().find(|name| !stays_inside(name)) {
        return Err(format!("the hub lists a file that leads out of the folder, {hostile:?}: nothing is fetched"));
    }
    let has = |name: &str| listed.iter().any(|l| l == name);
    let single: Vec<&str> = listed.iter().map(String::as_str).filter(|name| is_single(name)).collect();
    let mut names = vec!["config.json", "tokenizer.json", "generation_config.json", "preprocessor_config.json"];
    let required: &[&str] = if has("model.safetensors") || has(INDEX) {
        let weights = if has("model.safetensors") { "model.safetensors" } else { INDEX };
        // Transformers' tokenizer in Python.
        let slow = !has("tokenizer.json") && has("vocab.json");
        if slow {
            names.extend(["vocab.json", "added_tokens.json", "merges.txt"]);
        }
        names.push(weights);
        if slow { &["config.json", "added_tokens.json"] } else { &["config.json", "tokenizer.json"] }
    } else if has("model.bin") {
        names.extend(["vocabulary.json", "vocabulary.txt", "model.bin"]);
        &["config.json"]
    } else if let [file] = single[..] {
        names.push(file);
        &[]
    } else {
        let endings = [".bin", ".safetensors", ".gguf", ".msgpack", ".h5", ".onnx", ".pt", ".ot", ".nemo"];
        let weights: Vec<&str> =
            listed.iter().map(String::as_str).filter(|name| endings.iter().any(|e| name.ends_with(e))).collect();
        let found = if weights.is_empty() { "no weights".to_string() } else { weights.join(", ") };
        let hint = if single.is_empty() { "" } else { "; `hf download` fetches one, whose path --model takes" };
        return Err(format!(
            "model.safetensors (Transformers), model.bin (CTranslate2) or one GGUF or ggml file is read; it has \
             {found}{hint}"
        ));
    };
    if let Some(missing) = required.iter().find(|name| !has(name)) {
        return Err(format!("it has weights but no {missing}: it is no Whisper checkpoint"));
    }
    let mut files: Vec<String> = names.iter().copied().filter(|name| has(name)).map(str::to_string).collect();
    if names.contains(&INDEX) {
        files.extend(listed.iter().filter(|name| is_shard(name)).cloned());
    }
    Ok(files)
}

/// What nobody would have in a model is refused before it fills the disk.
pub(super) fn check_size(name: &str, size: u64) -> Result<(), String> {
    let is_weights = name == "model.bin" || name.ends_with(".safetensors") || is_single(name);
    let largest = if is_weights { LARGEST_WEIGHTS } else { LARGEST_TEXT };
    if size > largest {
        return Err(format!("{name} has {size} bytes on the hub; at most {largest} are taken"));
    }
    Ok(())
}

/// Whether a model in one file is called so: `tiny.gguf`, `ggml-tiny.bin`.
fn is_single(name: &str) -> bool {
    !name.contains('/') && (name.ends_with(".gguf") || (name.starts_with("ggml") && name.ends_with(".bin")))
}

/// `model-00001-of-00002.safetensors`
fn is_shard(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let numbers = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
    numbers.and_then(|n| n.split_once("-of-")).is_some_and(|(number, count)| digits(number) && digits(count))
}

/// Whether a listed path names something within the repository, on every system.
fn stays_inside(name: &str) -> bool {
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    name.split('/').all(is_plain) && !name.contains(|c: char| c.is_control() || c == '\\' || c == ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_bytes_that_are_read_are_chosen() {
        let openai = "README.md added_tokens.json config.json flax_model.msgpack generation_config.json merges.txt \
                      model.fp32-00001-of-00002.safetensors model.safetensors preprocessor_config.json \
                      pytorch_model.bin tf_model.h5 tokenizer.json onnx/model.onnx vocab.json";
        let sharded = "config.json tokenizer.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors \
                       model-x-of-00002.safetensors model.safetensors.index.json";
        let rows: [(&str, Result<&str, &str>); 12] = [
            (
                openai,
                Ok("config.json tokenizer.json generation_config.json preprocessor_config.json model.safetensors"),
            ),
            (
                sharded,
                Ok("config.json tokenizer.json model.safetensors.index.json model-00001-of-00002.safetensors \
                    model-00002-of-00002.safetensors"),
            ),
            (
                "config.json model.bin tokenizer.json vocabulary.txt README.md",
                Ok("config.json tokenizer.json vocabulary.txt model.bin"),
            ),
            ("config.json pytorch_model.bin", Err("it has pytorch_model.bin")),
            ("README.md", Err("it has no weights")),
            ("config.json model.safetensors", Err("no tokenizer.json")),
            (
                "added_tokens.json config.json merges.txt model.safetensors vocab.json",
                Ok("config.json vocab.json added_tokens.json merges.txt model.safetensors"),
            ),
            ("config.json model.safetensors vocab.json", Err("no added_tokens.json")),
            ("README.md ggml-tiny.bin onnx/x.gguf", Ok("ggml-tiny.bin")),
            ("config.json tokenizer.json x.gguf pytorch_model.bin", Ok("config.json tokenizer.json x.gguf")),
            ("a.gguf b.gguf", Err("it has a.gguf, b.gguf; `hf download` fetches one")),
            ("config.json tokenizer.json model.safetensors ../x", Err("\"../x\"")),
        ];
        for (listed, expected) in rows {
            let listed: Vec<String> = listed.split_whitespace().map(str::to_string).collect();
            match (files(&listed), expected) {
                (Ok(files), Ok(expected)) => assert_eq!(files, expected.split_whitespace().collect::<Vec<_>>()),
                (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                (got, expected) => panic!("{got:?}, not {expected:?}"),
            }
        }
        for hostile in ["/etc/passwd", "a/../b", "", "a//b", "a\\b", "c:x", "a\nb", "a/."] {
            assert!(files(&[hostile.to_string()]).unwrap_err().contains("leads out"), "{hostile}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        for name in ["model.safetensors", "model.bin", "x.gguf", "ggml-large.bin"] {
            assert!(check_size(name, 6 << 30).is_ok(), "{name}");
        }
        assert!(check_size("model.safetensors", 1 << 40).is_err());
        assert!(check_size("config.json", 1 << 30).is_err());
    }
}
