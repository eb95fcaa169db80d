//! JSON Schema (draft 2020-12) of a spec, from the tables that the parser reads.

use serde_json::{Map, Value, json};

use super::keys::{Key, Kind, Need, SPEC_KEYS};
use super::models::model_names;

/// Name of the schema.
pub const SCHEMA_ID: &str = "sweep.spec/1";

const COUNT_TEXT: &str = "^\\+?[0-9][0-9_]*(\\.[0-9_]*)?([eE]\\+?[0-9]+|\\s*[kKMGBT])?$";
const NUMBER_TEXT: &str = "^[-+]?[0-9][0-9_]*(\\.[0-9_]*)?([eE][-+]?[0-9]+|\\s*[kKMGBT])?$";
const DURATION_TEXT: &str = "^([0-9][0-9_.]*[smhd]\\s*)+$";

/// The schema, for editors: `# yaml-language-server: $schema=FILE`.
pub fn schema() -> Value {
    let mut schema = section(SPEC_KEYS, true);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["$id"] = json!(SCHEMA_ID);
    schema["title"] = json!("A sweep");
    schema
}

fn section(keys: &[Key], whole: bool) -> Value {
    let mut properties = Map::new();
    for key in keys {
        let mut property = of(&key.kind);
        property["description"] = json!(match key.need {
            Need::Default(value) if whole => format!("{}. Default: {value}", key.doc),
            _ => key.doc.to_owned(),
        });
        properties.insert(key.name.to_owned(), property);
    }
    let mut schema = json!({"type": "object", "additionalProperties": false, "properties": properties});
    let required: Vec<&str> = keys.iter().filter(|key| key.need == Need::Required).map(|key| key.name).collect();
    if !whole {
        schema["minProperties"] = json!(1);
    } else if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn of(kind: &Kind) -> Value {
    let text = |pattern: &str| json!({"type": "string", "pattern": pattern});
    match kind {
        Kind::Text => json!({"type": "string", "minLength": 1}),
        Kind::Name => text("^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"),
        Kind::Model => json!({"anyOf": [{"enum": model_names().collect::<Vec<_>>()}, text("/|\\.json$")]}),
        Kind::Count { min, max } => {
            json!({"anyOf": [{"type": "integer", "minimum": min, "maximum": max}, text(COUNT_TEXT)]})
        }
        Kind::DataSize => json!({"anyOf": [{"const": "all"}, {"type": "integer", "minimum": 1}, text(COUNT_TEXT)]}),
        Kind::Shots => {
            json!({"anyOf": [{"enum": ["all", "vtab1k"]}, {"type": "integer", "minimum": 1}, text(COUNT_TEXT)]})
        }
        Kind::CountOrAll { max } => json!({"anyOf": [
            {"const": "all"},
            {"type": "integer", "minimum": 1, "maximum": max},
            text(COUNT_TEXT),
        ]}),
        Kind::Amount => json!({"anyOf": [
            {"type": "integer", "minimum": 0},
            text(COUNT_TEXT),
            text("^[0-9.]+\\s*%$"),
        ]}),
        Kind::Number(range) => {
            let mut number = json!({"type": "number"});
            number[if range.min_allowed { "minimum" } else { "exclusiveMinimum" }] = json!(range.min);
            if range.below.is_finite() {
                number["exclusiveMaximum"] = json!(range.below);
            }
            json!({"anyOf": [number, text(NUMBER_TEXT)]})
        }
        Kind::Ruled(plain, keys) => json!({"anyOf": [of(plain), section(keys, true)]}),
        Kind::Duration { .. } => text(DURATION_TEXT),
        Kind::Checked(_, allowed) => json!({"type": "string", "description": allowed}),
        Kind::Choice(words) => json!({"enum": words}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Numbers => json!({"type": "object", "additionalProperties": {"type": "number"}}),
        Kind::Texts => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Kind::Tuple(kind, count) => json!({"type": "array", "items": of(kind), "minItems": count, "maxItems": count}),
        Kind::List(kind) => json!({"type": "array", "items": of(kind)}),
        Kind::OneOrMore(kind) => {
            let one = of(kind);
            json!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1, "uniqueItems": true}]})
        }
        Kind::Section(keys) => section(keys, true),
        Kind::Some(keys) => section(keys, false),
        Kind::Variant(keys) => {
            let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
            let mut options = section(keys, true);
            options["minProperties"] = json!(1);
            options["maxProperties"] = json!(1);
            json!({"anyOf": [{"enum": names}, options]})
        }
    }
}
