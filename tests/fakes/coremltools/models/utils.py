import json
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace


def load_spec(model_path):
    assert isinstance(model_path, str)
    described = json.loads((Path(model_path) / "fake.json").read_text())

    def features(rows):
        return [SimpleNamespace(name=row[0], type=Kind(row[1])) for row in rows]

    functions = [
        SimpleNamespace(name=name, input=features(each["inputs"]), output=features(each["outputs"]))
        for name, each in described["functions"].items()
    ]
    several = list(described["functions"]) != [""]
    main = functions[0]
    description = SimpleNamespace(
        metadata=SimpleNamespace(userDefined=described["metadata"]),
        defaultFunctionName=described["default"],
        functions=functions if several else [],
        input=[] if several else main.input,
        output=[] if several else main.output,
    )
    return SimpleNamespace(description=description)


class Kind:
    def __init__(self, kind):
        self.kind = kind

    def WhichOneof(self, group):
        assert group == "Type"
        return self.kind


def compile_model(model, destination_path=None):
    from coremltools import step

    if not isinstance(model, str) or not model.rstrip("/").endswith(".mlpackage"):
        raise ValueError(f"Invalid model file path: '{model}'.")
    if not destination_path.endswith(".mlmodelc"):
        raise Exception('"destination_path" parameter must have ".mlmodelc" file extension.')
    import onnxruntime

    step("*", "compile")
    onnxruntime.InferenceSession((Path(model) / "model").read_bytes())
    made = Path(tempfile.mkdtemp(suffix=".mlmodelc"))
    for name in ("model", "fake.json"):
        shutil.copy(Path(model) / name, made / name)
    with (Path(model).parent / "compiled.log").open("a") as log:
        log.write("compiled\n")
    shutil.move(str(made), destination_path)
    return destination_path
