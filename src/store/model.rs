//! A [`Model`] as the inert values of a [`ModelFile`], and back: bit for bit.
//!
//! | in the file | what it is |
//! |---|---|
//! | `params/coefficients` | (scores, features), on standardised features |
//! | `params/intercepts` | (scores) |
//! | `params/mean`, `params/inverse_scale` | (features): z = (x − mean)·inverse_scale |
//! | `params/start`, `params/tree_…` | of boosted trees: see `trees.rs`; of a forest: see `forest.rs` |
//! | `params/layer_…` | of a network: see `network.rs` |
//! | `params/calibration_…`, `uncalibrated_digest` | of a calibrated model: see `calibrated.rs` |
//! | `params/class_values` | integer classes, in order |
//! | `features`, `classes` | names after encoding; class names |
//! | `targets` | names of several targets that are predicted together; absent: there is one |
//! | `columns`, `column_kinds` | stored columns: `narrow`, `wide` or `text` |
//! | `categories_N` | the dictionary of text column N |
//! | `params/column_is_category` | (columns): 1 where a column is one feature, the place of its category; absent: none |
//! | `params/category_values_N` | the categories of column N, which holds numbers |
//! | `member_names`, `members/000`, … | of an ensemble: names, and the models: see `members.rs` |
//! | `image` | attribute, JSON: height, width and channels of rows that are images; absent: they are not |
//! | `continued_rounds`, `continued_digest` | rounds that came from another model, and its digest; absent: trained at once |
//! | `settings` | a TOML text that `--config` takes: see [`settings`](super::settings) |

use super::settings::{settings_from, settings_text};
use super::{Array, ModelFile, calibrated, forest, members, network, trees};
use crate::config::{Kind, TrainConfig};
use crate::data::names::Inputs;
use crate::data::names::TableNames;
use crate::data::{ColumnKind, Image};
use crate::error::{Error, Result};
use crate::model::{Calibrated, ColumnCode, Continued, LinearModel, Model, Preprocess, Scores, TargetCoding};
use std::ops::Range;
use std::path::PathBuf;

const COLUMN_KINDS: [(&str, ColumnKind); 3] =
    [("narrow", ColumnKind::Narrow), ("wide", ColumnKind::Wide), ("text", ColumnKind::Text)];

/// The model as a file holds it. `inputs`: the files, group and rows it was trained on, for `verify`; no part of the digest.
pub fn to_file(model: &Model, inputs: &Inputs) -> Result<ModelFile> {
    if let Scores::Calibrated(of) = &model.scores {
        // The file of what was calibrated, and the maps beside it.
        let mut file = to_file(&of.model, inputs)?;
        file.arrays.extend(calibrated::to_arrays(&of.maps));
        file.attributes.push(("uncalibrated_digest".to_string(), file.digest));
        file.config = settings_text(&model.config, &model.names)?;
        file.digest = model.digest.clone();
        return Ok(file);
    }
    let mut arrays = match &model.scores {
        Scores::Linear(linear) => linear_arrays(linear, &model.preprocess),
        Scores::Mlp(of) => network::to_arrays(of, &model.preprocess),
        Scores::Boosted(boosted) => trees::to_arrays(boosted),
        Scores::Forest(forest) => forest::to_arrays(forest),
        Scores::Ensemble(ensemble) => members::to_arrays(ensemble),
        Scores::Calibrated(_) => return Err(Error::internal("a calibrated model in a calibrated model")),
    };
    let coding = match &model.target {
        TargetCoding::Number => "number",
        TargetCoding::Numbers(_) => "numbers",
        TargetCoding::Strings(_) => "strings",
        TargetCoding::Integers(classes) => {
            arrays
                .push(("class_values".to_string(), Array::I64 { shape: vec![classes.len()], values: classes.clone() }));
            "integers"
        }
    };
    let columns = &model.preprocess.columns;
    let kind_of = |column: &ColumnCode| {
        let word = COLUMN_KINDS.iter().find(|(_, kind)| *kind == column.kind).map_or("", |(word, _)| word);
        word.to_string()
    };
    let mut strings = vec![
        ("features".to_string(), model.preprocess.feature_names()),
        ("classes".to_string(), model.target.names()),
        ("columns".to_string(), columns.iter().map(|column| column.name.clone()).collect()),
        ("column_kinds".to_string(), columns.iter().map(kind_of).collect()),
    ];
    if let TargetCoding::Numbers(names) = &model.target {
        strings.push(("targets".to_string(), names.clone()));
    }
    for (i, column) in columns.iter().enumerate().filter(|(_, column)| column.kind == ColumnKind::Text) {
        strings.push((format!("categories_{i}"), column.categories.clone()));
    }
    // Models without such columns are as they always were.
    let is_category: Vec<u64> = columns.iter().map(|column| column.is_category.into()).collect();
    if is_category.contains(&1) {
        arrays.push(("column_is_category".to_string(), Array::U64 { shape: vec![columns.len()], values: is_category }));
        for (i, column) in columns.iter().enumerate().filter(|(_, column)| column.is_category && !column.is_text()) {
            let values = Array::F64 { shape: vec![column.values.len()], values: column.values.clone() };
            arrays.push((format!("category_values_{i}"), values));
        }
    }
    let paths: Vec<String> = inputs.paths.iter().map(|path| path.display().to_string()).collect();
    let inputs = (paths, inputs.names.group.clone(), inputs.rows.clone());
    let attributes = [
        ("target_coding", coding.to_string()),
        ("input_digest", model.input_digest.clone()),
        ("n_rows", model.n_rows.to_string()),
        ("inputs", serde_json::to_string(&inputs).map_err(|e| Error::internal(e.to_string()))?),
    ];
    let mut attributes: Vec<(String, String)> = attributes.map(|(name, value)| (name.to_string(), value)).into();
    // Models of other rows, and those that were trained at once, are as they always were.
    if let Some(Image { height, width, channels }) = model.preprocess.image {
        attributes.push(("image".to_string(), format!("[{height},{width},{channels}]")));
    }
    if let Some(from) = &model.continued {
        attributes.push(("continued_rounds".to_string(), from.rounds.to_string()));
        attributes.push(("continued_digest".to_string(), from.digest.clone()));
    }
    let mut parts = Vec::new();
    if let Scores::Ensemble(ensemble) = &model.scores {
        strings.push(("member_names".to_string(), ensemble.members.iter().map(|member| member.name.clone()).collect()));
        attributes.push(("combine".to_string(), ensemble.combine.name().to_string()));
        parts = members::to_parts(ensemble)?;
    }
    Ok(ModelFile {
        kind: model.config.kind.name().to_string(),
        arrays,
        strings,
        config: settings_text(&model.config, &model.names)?,
        attributes,
        history: model.history.clone(),
        digest: model.digest.clone(),
        program_version: env!("CARGO_PKG_VERSION").to_string(),
        parts,
    })
}

fn linear_arrays(linear: &LinearModel, preprocess: &Preprocess) -> Vec<(String, Array)> {
    let (k, d) = (linear.n_scores, linear.n_features);
    let of_scores = linear.params.chunks_exact(d + 1);
    let coefficients = of_scores.clone().flat_map(|params| params[..d].iter().copied()).collect();
    let intercepts = of_scores.map(|params| params[d]).collect();
    let f64s = |shape: Vec<usize>, values: Vec<f64>| Array::F64 { shape, values };
    vec![
        ("coefficients".to_string(), f64s(vec![k, d], coefficients)),
        ("intercepts".to_string(), f64s(vec![k], intercepts)),
        ("mean".to_string(), f64s(vec![d], preprocess.mean.clone())),
        ("inverse_scale".to_string(), f64s(vec![d], preprocess.inverse_scale.clone())),
    ]
}

/// The model in a file. Everything is checked: the file is somebody's.
pub fn from_file(file: &ModelFile) -> Result<Model> {
    let (config, names) = settings_from(&file.config)?;
    let Some(method) = config.calibrate else { return model_from(file, config, names) };
    let of_model = TrainConfig { calibrate: None, calibrate_folds: None, ..config.clone() };
    let mut of = model_from(file, of_model, names)?;
    let digest = file.attribute("uncalibrated_digest");
    of.digest = digest.ok_or_else(|| Error::data("lacks the attribute 'uncalibrated_digest'"))?.to_string();
    let maps = calibrated::from_file(file, method, of.scores.n_scores())?;
    if of.target.n_classes() == 0 {
        return Err(misfit("calibrate", "a model of classes"));
    }
    Ok(Model {
        config,
        digest: file.digest.clone(),
        names: of.names.clone(),
        preprocess: of.preprocess.clone(),
        target: of.target.clone(),
        continued: None,
        history: of.history.clone(),
        input_digest: of.input_digest.clone(),
        n_rows: of.n_rows,
        scores: Scores::Calibrated(Box::new(Calibrated { model: of, maps })),
    })
}

/// The same of a model that is not calibrated.
fn model_from(file: &ModelFile, config: TrainConfig, names: TableNames) -> Result<Model> {
    if file.kind != config.kind.name() {
        return Err(Error::data(format!(
            "is a '{}' model with the settings of a '{}' one",
            file.kind,
            config.kind.name()
        )));
    }
    let columns = columns_from(file)?;
    let text = |name: &str| file.attribute(name).ok_or_else(|| Error::data(format!("lacks the attribute '{name}'")));
    let target = match text("target_coding")? {
        "number" => TargetCoding::Number,
        "numbers" => TargetCoding::Numbers(several(file.strings("targets")?)?),
        "strings" => TargetCoding::Strings(ascending("classes", file.strings("classes")?)?),
        "integers" => TargetCoding::Integers(ascending("class_values", file.i64("class_values")?.1)?),
        other => return Err(Error::data(format!("codes its target as '{other}', which this program does not know"))),
    };
    let (scores, mean, inverse_scale) = match config.kind {
        Kind::Boost => (Scores::Boosted(trees::from_file(file)?), Vec::new(), Vec::new()),
        Kind::Forest => {
            let has_classes = config.responds_as().is_classifier();
            (Scores::Forest(forest::from_file(file, has_classes)?), Vec::new(), Vec::new())
        }
        kind if kind.is_ensemble() => {
            let ensemble = members::from_file(file, &columns, &target)?;
            (Scores::Ensemble(Box::new(ensemble)), Vec::new(), Vec::new())
        }
        Kind::Mlp => {
            let preprocess = Preprocess { columns: columns.clone(), ..Preprocess::default() };
            let of_kind = config.mlp.clone().unwrap_or_default();
            let d = preprocess.n_features();
            let network = network::from_file(file, &of_kind, &preprocess, &target)?;
            (Scores::Mlp(network), vector(file, "mean", d)?, vector(file, "inverse_scale", d)?)
        }
        _ => {
            let linear = linear_from(file)?;
            let d = linear.n_features;
            (Scores::Linear(linear), vector(file, "mean", d)?, vector(file, "inverse_scale", d)?)
        }
    };
    let image = file.attribute("image").map(|text| image_from(text, columns.len())).transpose()?;
    check_image(&config, image)?;
    let preprocess = Preprocess { columns, image, missing: config.missing, mean, inverse_scale };
    let (k, d) = (scores.n_scores(), scores.n_features());
    if preprocess.n_features() != d {
        return Err(misfit("features", &format!("{} of them, as the columns say", preprocess.n_features())));
    }
    let is_ensemble = config.kind.is_ensemble(); // whose settings may not say
    let n_scores = match target.n_classes() {
        n_classes if n_classes == 1 || (!is_ensemble && config.responds_as().is_classifier() != (n_classes > 0)) => {
            return Err(misfit("classes", &format!("those of a '{}' model", file.kind)));
        }
        0 => target.n_targets(),
        2 => 1,
        n_classes => n_classes,
    };
    if k != n_scores {
        return Err(misfit("scores", &format!("{n_scores} of them, as the classes say")));
    }
    let n_rows = text("n_rows")?;
    let continued = match (file.attribute("continued_rounds"), &scores) {
        (Some(rounds), Scores::Boosted(boosted)) => {
            let rounds = rounds.parse().ok().filter(|rounds| *rounds <= boosted.n_rounds());
            let rounds = rounds.ok_or_else(|| misfit("continued_rounds", "no more rounds than there are"))?;
            Some(Continued { rounds, digest: text("continued_digest")?.to_string() })
        }
        _ => None,
    };
    Ok(Model {
        names,
        preprocess,
        target,
        scores,
        continued,
        history: file.history.clone(),
        digest: file.digest.clone(),
        input_digest: text("input_digest")?.to_string(),
        n_rows: n_rows.parse().map_err(|_| Error::data(format!("n_rows is '{n_rows}', not a number")))?,
        config,
    })
}

fn linear_from(file: &ModelFile) -> Result<LinearModel> {
    let (shape, coefficients) = file.f64("coefficients")?;
    let &[k, d] = shape else { return Err(misfit("coefficients", "two axes")) };
    finite("coefficients", coefficients)?;
    let intercepts = vector(file, "intercepts", k)?;
    let mut params = Vec::with_capacity(k * (d + 1));
    for (score, intercept) in intercepts.iter().enumerate() {
        params.extend_from_slice(&coefficients[score * d..(score + 1) * d]);
        params.push(*intercept);
    }
    Ok(LinearModel { n_features: d, n_scores: k, params })
}

/// The files, names and rows the model was trained on, as they were named then.
pub fn inputs_of(file: &ModelFile, model: &Model) -> Inputs {
    let stored = file.attribute("inputs").and_then(|text| serde_json::from_str(text).ok());
    let (paths, group, rows): (Vec<PathBuf>, Option<String>, Option<Range<u64>>) = stored.unwrap_or_default();
    Inputs { paths, names: TableNames { group, ..model.names.relative() }, rows, ..Inputs::default() }
}

fn columns_from(file: &ModelFile) -> Result<Vec<ColumnCode>> {
    let (names, kinds) = (file.strings("columns")?, file.strings("column_kinds")?);
    if names.len() != kinds.len() {
        return Err(misfit("column_kinds", &format!("{} entries", names.len())));
    }
    let is_category = match file.array("column_is_category") {
        Ok(_) => file.u64("column_is_category")?.1,
        Err(_) => &[],
    };
    let column = |(i, (name, word)): (usize, (&String, &String))| {
        let kind = COLUMN_KINDS.iter().find(|(known, _)| known == word).map(|(_, kind)| *kind);
        let kind = kind.ok_or_else(|| Error::data(format!("column '{name}' is of the unknown kind '{word}'")))?;
        let categories = match kind {
            ColumnKind::Text => {
                let name = format!("categories_{i}");
                ascending(&name, file.strings(&name)?)?
            }
            _ => Vec::new(),
        };
        let is_category = is_category.get(i) == Some(&1);
        let values = match is_category && kind != ColumnKind::Text {
            true => {
                let name = format!("category_values_{i}");
                let values = file.f64(&name)?.1.to_vec();
                let is_ascending = values.windows(2).all(|pair| pair[0] < pair[1]);
                let is_one = values.len() == 1 && !values[0].is_nan();
                if !(is_ascending && (values.len() != 1 || is_one)) {
                    return Err(misfit(&name, "ascending numbers"));
                }
                values
            }
            false => Vec::new(),
        };
        Ok(ColumnCode { name: name.clone(), kind, categories, values, is_category })
    };
    names.iter().zip(kinds).enumerate().map(column).collect()
}

fn several(names: &[String]) -> Result<Vec<String>> {
    if names.len() > 1 { Ok(names.to_vec()) } else { Err(misfit("targets", "two names or more")) }
}

fn image_from(text: &str, n_columns: usize) -> Result<Image> {
    let axes: Option<[u64; 3]> = serde_json::from_str(text).ok();
    let image = axes.and_then(|axes| Image::of_axes(&axes)).filter(|image| image.n_values() == Some(n_columns));
    image.ok_or_else(|| misfit("image", &format!("height, width and channels of {n_columns} columns, not {text}")))
}

/// Convolution is built for the shape in the settings, and tables are compared with that of the attribute: they are written alike.
fn check_image(config: &TrainConfig, image: Option<Image>) -> Result<()> {
    let Some(axes) = config.mlp.as_ref().and_then(|of_kind| of_kind.image) else { return Ok(()) };
    let looked_at = Image::of_axes(&axes);
    if looked_at == image {
        return Ok(());
    }
    let shown = |image: Option<Image>| image.map_or("none".to_string(), |image| image.to_string());
    Err(misfit(
        "image",
        &format!(
            "images of {}, which the settings' stages of convolution look at, but found {}; take the file as consort wrote it, or \
             train the model again",
            shown(looked_at),
            shown(image)
        ),
    ))
}

fn vector(file: &ModelFile, name: &str, len: usize) -> Result<Vec<f64>> {
    let (_, values) = file.f64(name)?;
    finite(name, values)?;
    if values.len() == len { Ok(values.to_vec()) } else { Err(misfit(name, &format!("{len} numbers"))) }
}

/// Training ends in finite numbers or in an error; others would turn every prediction into NaN without a word.
pub(super) fn finite(name: &str, values: &[f64]) -> Result<()> {
    if values.iter().all(|value| value.is_finite()) { Ok(()) } else { Err(misfit(name, "finite numbers")) }
}

/// They are looked up by bisection.
fn ascending<T: Ord + Clone>(name: &str, values: &[T]) -> Result<Vec<T>> {
    if values.windows(2).all(|pair| pair[0] < pair[1]) {
        Ok(values.to_vec())
    } else {
        Err(misfit(name, "rising order"))
    }
}

pub(super) fn misfit(name: &str, expected: &str) -> Error {
    Error::data(format!("damaged model: expected {expected}")).at(format!("'{name}'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Solver, Sync, TrainConfig};

    pub(crate) fn model(kind: Kind) -> Model {
        let (target, k) = match kind {
            Kind::Logistic => (TargetCoding::Strings(vec!["e".into(), "µ".into(), "τ".into()]), 3),
            Kind::Svm => (TargetCoding::Integers(vec![-1, 7]), 1),
            _ => (TargetCoding::Number, 1),
        };
        let config = TrainConfig {
            kind,
            solver: Solver::Sgd,
            sync: Sync::Every(7),
            lanes: Some(3),
            l2: 0.1 + 0.2,
            ..TrainConfig::default()
        };
        let code = |name: &str, kind, categories: &[&str]| ColumnCode {
            categories: categories.iter().map(|c| c.to_string()).collect(),
            ..ColumnCode::new(name.into(), kind)
        };
        let columns = vec![
            code("pt", ColumnKind::Narrow, &[]),
            code("site", ColumnKind::Text, &["", "a", "b/c"]),
            code("t", ColumnKind::Wide, &[]),
            code("none", ColumnKind::Text, &[]),
        ];
        let odd = |i: usize| if i == 1 { -0.0 } else { 5e-324 * (i as f64 + 1.0) + i as f64 / 3.0 };
        Model {
            names: TableNames { features: vec!["pt".into()], group: Some("train".into()), ..TableNames::default() },
            preprocess: Preprocess {
                columns,
                image: None,
                missing: config.missing,
                mean: (0..5).map(odd).collect(),
                inverse_scale: (2..7).map(odd).collect(),
            },
            target,
            scores: Scores::Linear(LinearModel { n_features: 5, n_scores: k, params: (0..6 * k).map(odd).collect() }),
            continued: None,
            history: vec![("loss".into(), vec![1.0, 0.5]), ("gradient".into(), vec![])],
            digest: "ab".repeat(32),
            input_digest: "cd".repeat(32),
            n_rows: 1_009,
            config,
        }
    }

    #[test]
    fn a_model_comes_back_with_its_bits() {
        let folder = tempfile::tempdir().unwrap();
        for kind in [Kind::Linear, Kind::Logistic, Kind::Svm, Kind::Poisson] {
            let before = model(kind);
            let names = TableNames { group: Some("runs".into()), ..before.names.clone() };
            let inputs =
                Inputs { paths: vec!["a b.h5".into(), "c\"d.h5".into()], names, rows: Some(3..9), ..Inputs::default() };
            let path = folder.path().join(format!("{kind:?}.h5"));
            crate::store::save(&path, &to_file(&before, &inputs).unwrap(), false).unwrap();
            let file = crate::store::load(&path).unwrap();
            let after = from_file(&file).unwrap();
            assert_eq!(after, before);
            let bits =
                |model: &Model| model.scores.linear().unwrap().params.iter().map(|p| p.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&after), bits(&before));
            assert_eq!(inputs_of(&file, &after), inputs);
        }
    }

    #[test]
    fn the_shape_of_images_is_kept_where_there_is_one() {
        let mut before = model(Kind::Linear);
        let plain = to_file(&before, &Inputs::default()).unwrap();
        assert_eq!((plain.attribute("image"), from_file(&plain).unwrap().preprocess.image), (None, None));
        before.preprocess.image = Some(Image { height: 1, width: 2, channels: 2 });
        let file = to_file(&before, &Inputs::default()).unwrap();
        assert_eq!((file.attribute("image"), from_file(&file).unwrap()), (Some("[1,2,2]"), before));
        let mut without = file.clone();
        without.attributes.retain(|(name, _)| name != "image");
        assert_eq!(without, plain, "the shape is all that differs");
        for spoilt in ["[1,2]", "[1,2,3]", "[0,2,2]", "[4,1,-1]", "4 × 1 × 1", "[9223372036854775808,2,2]"] {
            let mut file = file.clone();
            file.attributes.iter_mut().filter(|(name, _)| name == "image").for_each(|(_, text)| *text = spoilt.into());
            let error = from_file(&file).unwrap_err();
            assert!(error.to_string().contains("'image'") && error.to_string().contains("of 4 columns"), "{error}");
        }
    }

    #[test]
    fn several_targets_come_back_with_their_names() {
        let mut before = model(Kind::Linear);
        let params = (0..18).map(f64::from).collect();
        before.scores = Scores::Linear(LinearModel { n_features: 5, n_scores: 3, params });
        before.target = TargetCoding::Numbers(["pz", "px", "pz"].map(String::from).to_vec());
        let good = to_file(&before, &Inputs::default()).unwrap();
        assert_eq!(from_file(&good).unwrap(), before);
        for n_targets in [0, 1, 2] {
            let mut file = good.clone();
            file.strings
                .iter_mut()
                .filter(|(name, _)| name == "targets")
                .for_each(|(_, names)| names.truncate(n_targets));
            assert!(from_file(&file).is_err(), "{n_targets} targets of 3 scores");
        }
    }

    #[test]
    fn categories_of_numbers_come_back_with_their_bits() {
        let mut before = model(Kind::Linear);
        for (column, values) in [(0, vec![-1e300, -0.1, 0.0, 5e-324]), (2, vec![])] {
            (before.preprocess.columns[column].is_category, before.preprocess.columns[column].values) = (true, values);
        }
        assert_eq!(before.preprocess.category_features(), [(0, 4), (4, 0)]);
        let after = from_file(&to_file(&before, &Inputs::default()).unwrap()).unwrap();
        assert_eq!(after, before);
    }

    #[test]
    fn a_file_that_does_not_fit_together_is_refused() {
        let good = to_file(&model(Kind::Logistic), &Inputs::default()).unwrap();
        assert!(from_file(&good).is_ok());
        let broken: [fn(&mut ModelFile); 8] = [
            |file| file.arrays[0].1 = Array::F64 { shape: vec![3, 5], values: vec![f64::NAN; 15] },
            |file| file.arrays[2].1 = Array::F64 { shape: vec![5], values: vec![f64::INFINITY; 5] },
            |file| file.arrays[1].1 = Array::F64 { shape: vec![2], values: vec![0.0; 2] },
            |file| file.arrays[2].1 = Array::F64 { shape: vec![4], values: vec![0.0; 4] },
            |file| file.kind = "linear".into(),
            |file| file.strings[1].1.truncate(2),
            |file| file.strings[1].1.swap(0, 1),
            |file| file.config = "kind = 'logistic'\nsolver = 'newton'\nspeed = 9".into(),
        ];
        for (i, spoil) in broken.iter().enumerate() {
            let mut file = good.clone();
            spoil(&mut file);
            let error = from_file(&file).expect_err(&format!("case {i}"));
            assert_eq!(error.kind(), crate::error::ErrorKind::Data, "case {i}: {error}");
        }
    }
}
