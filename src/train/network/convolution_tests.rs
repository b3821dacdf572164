//! Networks that look at images: the same bits however a job is cut, what they learn, and tables that do not fit.

use super::super::tree_tables::{scores, train};
use super::super::{Inputs, Kind, TrainConfig};
use crate::config::{Activation, MlpConfig, Norm};
use crate::data::memory::MemorySource;
use crate::data::{Image, TargetKind};
use crate::model::{Model, Scores};
use crate::rng::{Draws, Stream};
use crate::store::model::{from_file, to_file};

const HEIGHT: usize = 7;
const WIDTH: usize = 6;
const CHANNELS: usize = 2;

/// A cross or a square of 3 × 3 places somewhere in noise: no pixel by itself says which.
fn shapes(n: usize) -> MemorySource {
    let draws = Draws::new(61, Stream::Synthetic);
    let mut x: Vec<f32> = (0..n * HEIGHT * WIDTH * CHANNELS).map(|i| 0.1 * draws.normal(i as u64, 1) as f32).collect();
    let is_cross = |row: u64| draws.below(2, row, 2) == 1;
    for (row, image) in x.chunks_exact_mut(HEIGHT * WIDTH * CHANNELS).enumerate() {
        let row = row as u64;
        let (top, left) =
            (draws.below(HEIGHT as u64 - 2, row, 3) as usize, draws.below(WIDTH as u64 - 2, row, 4) as usize);
        for (y, x) in (0..3).flat_map(|y| (0..3).map(move |x| (y, x))) {
            if is_cross(row) == (y == 1 || x == 1) {
                image[((top + y) * WIDTH + left + x) * CHANNELS + (x + y) % CHANNELS] += 1.0;
            }
        }
    }
    let y = (0..n as u64).map(|row| f64::from(u8::from(is_cross(row)))).collect();
    let table = MemorySource::from_f32(x, HEIGHT * WIDTH * CHANNELS).unwrap();
    table.with_image(image()).with_target(y, TargetKind::Integer).unwrap()
}

fn image() -> Image {
    Image { height: HEIGHT, width: WIDTH, channels: CHANNELS }
}

fn config(mlp: MlpConfig) -> TrainConfig {
    TrainConfig { mlp: Some(mlp), global_batch: 48, lanes: Some(3), epochs: Some(2), ..TrainConfig::of(Kind::Mlp) }
}

fn last_loss(model: &Model) -> f64 {
    *model.history[0].1.last().unwrap()
}

#[test]
fn stages_of_convolution_give_the_same_bits_on_any_number_of_ranks_and_threads() {
    let table = shapes(199);
    for mlp in [
        MlpConfig { conv: vec![5, 3], layers: vec![9], ..MlpConfig::default() },
        MlpConfig {
            conv: vec![4],
            layers: vec![],
            activation: Activation::Gelu,
            norm: Norm::Layer,
            dropout: 0.2,
            ..MlpConfig::default()
        },
        MlpConfig { conv: vec![5, 3], layers: vec![9], norm: Norm::Batch, ..MlpConfig::default() },
    ] {
        let config = config(mlp);
        let (alone, _) = train(1, 1, &table, &config).unwrap();
        assert_eq!(alone.config.mlp.as_ref().unwrap().image, Some([7, 6, 2]));
        for (size, threads) in [(1, 2), (2, 1), (3, 2), (5, 1)] {
            let (model, _) = train(size, threads, &table, &config).unwrap();
            assert_eq!((&model.digest, &model), (&alone.digest, &alone), "{size} ranks, {threads} threads");
        }
        let again = from_file(&to_file(&alone, &Inputs::default()).unwrap()).unwrap();
        assert_eq!(again, alone);
        assert_eq!(scores(&again, &table), scores(&alone, &table));
    }
}

#[test]
fn all_places_of_a_channel_share_mean_and_deviation() {
    // Channel 0: mean 2, deviation 1; channel 1: constant but for one place, mean 5 and deviation 2.
    #[rustfmt::skip]
    let x: Vec<f32> = vec![
        1.0, 5.0,  3.0, 5.0,  1.0, 5.0,  3.0, 1.0,
        3.0, 5.0,  1.0, 5.0,  1.0, 5.0,  3.0, 9.0,
    ];
    let table = MemorySource::from_f32(x, 8).unwrap().with_image(Image { height: 2, width: 2, channels: 2 });
    let table = table.with_target(vec![0.0, 1.0], TargetKind::Integer).unwrap();
    let of = |conv: Vec<u64>| {
        let mlp = MlpConfig { conv, layers: vec![], ..MlpConfig::default() };
        train(2, 1, &table, &TrainConfig { lanes: Some(1), ..config(mlp) }).unwrap().0.preprocess
    };
    let shared = of(vec![1]);
    assert_eq!(shared.mean, [2.0, 5.0].repeat(4));
    assert_eq!(shared.inverse_scale, [1.0, 0.5].repeat(4));
    assert_eq!(of(vec![]).inverse_scale, [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.25]);
}

#[test]
fn shapes_are_told_apart_wherever_they_are() {
    let table = shapes(600);
    let of = |conv: Vec<u64>| {
        let mlp = MlpConfig { conv, layers: vec![16], ..MlpConfig::default() };
        let config = TrainConfig { epochs: Some(12), lanes: Some(1), ..config(mlp) };
        train(2, 1, &table, &config).unwrap().0
    };
    let (with, without) = (of(vec![8, 8]), of(vec![]));
    assert!(
        last_loss(&with) < 0.1 && last_loss(&with) < last_loss(&without),
        "{} {}",
        last_loss(&with),
        last_loss(&without)
    );
}

#[test]
fn tables_that_are_no_images_and_images_that_are_too_small_are_refused() {
    let table = shapes(40);
    let of = |conv: Vec<u64>| config(MlpConfig { conv, layers: vec![3], ..MlpConfig::default() });
    let plain = table.clone().without_image();
    let refusal = |table: &MemorySource, conv: Vec<u64>| train(2, 1, table, &of(conv)).unwrap_err().to_string();
    let message = refusal(&plain, vec![4]);
    assert!(
        message.contains("--conv: convolution looks at images, but the rows of this table are plain columns"),
        "{message}"
    );
    assert!(message.contains("n × height × width"), "{message}");
    let message = refusal(&table, vec![4, 4, 4]);
    assert!(
        message
            .contains("--conv: each stage halves the images, and 3 of them leave nothing of 7 × 6 × 2; at most 2 fit"),
        "{message}"
    );
    assert!(refusal(&table, vec![4, 0]).contains("--conv: 0 channels are not from 1 to"));
}

#[test]
fn a_model_of_images_takes_images_of_that_shape_only() {
    let table = shapes(60);
    let (model, _) =
        train(1, 1, &table, &config(MlpConfig { conv: vec![2], layers: vec![], ..MlpConfig::default() })).unwrap();
    let checked =
        |table: &MemorySource| super::super::score::check_columns(&model, crate::data::DataSource::schema(table));
    assert_eq!(checked(&table), Ok(()));
    let turned = table.clone().with_image(Image { height: WIDTH, width: HEIGHT, channels: CHANNELS });
    let refused = checked(&turned).unwrap_err().to_string();
    assert!(refused.starts_with("the images are 6 × 7 × 2 but the model was trained on 7 × 6 × 2;"), "{refused}");
    let refused = checked(&table.clone().without_image()).unwrap_err().to_string();
    assert!(refused.starts_with("the rows are not images,"), "{refused}");
}

#[test]
fn a_damaged_shape_is_refused() {
    let table = shapes(60);
    let (model, _) =
        train(1, 1, &table, &config(MlpConfig { conv: vec![2], layers: vec![], ..MlpConfig::default() })).unwrap();
    let file = to_file(&model, &Inputs::default()).unwrap();
    assert!(file.config.contains("conv = [2]") && file.config.contains("image = [7, 6, 2]"), "{}", file.config);
    for spoilt in ["[7, 6, 3]", "[1, 84, 1]", "[0, 6, 2]", "[9223372036854775807, 6, 2]"] {
        let mut file = file.clone();
        file.config = file.config.replace("[7, 6, 2]", spoilt);
        let refused = from_file(&file).unwrap_err().to_string();
        assert!(refused.contains("'image'") && refused.contains("a shape of 84 values"), "{refused}");
    }
    // Each of the two fits the columns, but they are not the same.
    let mut turned = file.clone();
    turned.config = turned.config.replace("[7, 6, 2]", "[6, 7, 2]");
    let mut plain = file.clone();
    plain.attributes.retain(|(name, _)| name != "image");
    for (file, words) in [(turned, ["6 × 7 × 2", "found 7 × 6 × 2"]), (plain, ["7 × 6 × 2", "found none"])] {
        let refused = from_file(&file).unwrap_err().to_string();
        assert!(refused.contains("'image'") && refused.contains("train the model again"), "{refused}");
        assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
    }
    let Scores::Mlp(network) = &model.scores else { panic!("a network") };
    assert_eq!(network.describe(), "convolution 3 × 3 of 7 × 6 × 2 → 2, pooling 2 × 2, relu, dense 18 → 1");
}
