use super::*;

#[test]
fn headers_are_read_as_python_writes_them() {
    let header = |text: &str| Header::parse(text);
    let found = header("{'descr': '>f8', 'fortran_order': True, 'shape': (3, 4, 5), }          \n").unwrap();
    assert_eq!((found.shape, found.fortran), (vec![3, 4, 5], true));
    assert_eq!(found.element, Stored::Number(Element { kind: Kind::Float, bytes: 8, big_endian: true }));
    let found = header("{\"shape\": (7L,), \"descr\": \"|S3\", \"fortran_order\": True}").unwrap();
    assert_eq!((found.shape, found.fortran, found.element), (vec![7], false, Stored::Bytes(3)));
    for (descr, shape, expected) in [
        ("'|O'", "(3,)", "Python objects"),
        ("'<c16'", "(3,)", "real and imaginary"),
        ("[('a', '<i4')]", "(3,)", "each field"),
        ("'<f16'", "(3,)", "as numbers or strings"),
        ("'<M8[ns]'", "(3,)", "as numbers or strings"),
        ("'<f8'", "()", "single value"),
        ("'<f8'", "(0, 3)", "no values"),
        ("'<f8'", "(99999999999, 99999999999)", "too many"),
        ("'<f8'", "(-1,)", "damaged"),
        ("'<f8", "(3,)", "as numbers or strings"),
        ("''", "(3,)", "as numbers or strings"),
        ("'é8'", "(3,)", "as numbers or strings"),
    ] {
        let error = header(&format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}")).unwrap_err();
        assert!(error.to_string().contains(expected), "{descr} {shape}: {error}");
    }
}

#[test]
fn columns_are_turned_into_rows_in_blocks_of_any_size() {
    let mut file = tempfile::tempfile().unwrap();
    let shape = [5usize, 2, 3];
    let mut stored = vec![0u8; 30];
    for (at, (i, j, k)) in (0..30).map(|at| (at, (at / 6, at / 3 % 2, at % 3))) {
        stored[i + 5 * (j + 2 * k)] = at as u8;
    }
    file.write_all(b"head").unwrap();
    file.write_all(&stored).unwrap();
    let mut rows = Vec::new();
    by_columns(&file, 4, &shape, 1, |block| {
        rows.extend_from_slice(block);
        Ok(())
    })
    .unwrap();
    assert_eq!(rows, (0..30).collect::<Vec<u8>>());
    assert!(by_columns(&file, 5, &shape, 1, |_| Ok(())).is_err());
}
