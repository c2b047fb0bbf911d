//! An instance's data, read and written beside it.

use crate::runtime::{RuntimeError, StagedFile};

use super::{Act, Subject, end, file, spec, started};

/// Data is read and written below the data folder, while the instance runs or not.
pub async fn data_is_read_and_written(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(1)));
    if !runtime.caps().carries_data {
        runtime.ensure_created(&spec).await.unwrap();
        assert!(matches!(runtime.read_data(&spec.key, "workspace").await, Err(RuntimeError::Invalid(_))));
        assert!(matches!(runtime.write_data(&spec.key, &[file("a/b", "c")]).await, Err(RuntimeError::Invalid(_))));
        end(subject, &spec.key).await;
        return;
    }
    assert_eq!(runtime.read_data(&spec.key, "workspace").await, Err(RuntimeError::NotFound));
    assert_eq!(runtime.write_data(&spec.key, &[file("a/b", "c")]).await, Err(RuntimeError::NotFound));
    runtime.ensure_created(&spec).await.unwrap();
    let read = async |folder: &str| -> Vec<(String, String)> {
        let shown =
            |file: StagedFile| (file.path.into_owned(), String::from_utf8(file.content.expose().clone()).unwrap());
        runtime.read_data(&spec.key, folder).await.unwrap().into_iter().map(shown).collect()
    };
    let pair = |path: &str, content: &str| (path.to_owned(), content.to_owned());
    for running in [false, true] {
        if running {
            started(&*runtime, &spec.key).await;
        }
        let deep = if running { "second" } else { "first" };
        let files = [file("workspace/deep/er/z.md", deep), file("workspace/a.md", ""), file(".other/x", "elsewhere")];
        runtime.write_data(&spec.key, &files).await.unwrap();
        let expected =
            [pair("workspace/FIRST.md", "first"), pair("workspace/a.md", ""), pair("workspace/deep/er/z.md", deep)];
        assert_eq!(read("workspace").await, expected);
        assert_eq!(read("workspace/deep/er").await, [pair("workspace/deep/er/z.md", deep)]);
        assert_eq!(read("workspace/deep/none").await, []);
    }
    for path in ["../escape", "/escape", "a/../../escape"] {
        assert!(runtime.write_data(&spec.key, &[file(path, "x")]).await.is_err(), "{path}");
    }
    end(subject, &spec.key).await;
}
