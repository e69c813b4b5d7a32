#!/usr/bin/env bash
# onnx's reference evaluator pools elsewhere: MaxPool takes pads for other sides, AveragePool with ceil_mode is shifted.
#
# Expected: `ReferenceEvaluator` computes operators as the specification defines them: pads are [top, left, bottom, right], and
#           with ceil_mode=1 windows begin where they do without, one more at the end that may reach over the edge.
# Happens:  MaxPool with strides of 1 reads the pads as top, bottom, left, right: to be padded above and below, a map is padded
#           above and at the left. The shape is not even that of onnx's own shape inference. AveragePool splits what the last
#           window reaches over the edge between both ends: from two pixels on all windows begin too early, and the last
#           pixels are not read. LpPool is computed by it.
# Hurt:     exported vision models and new backends are checked against it; the right runtime is taken for the wrong one.
# Instead:  onnxruntime; or a Pad node before the pooling, and no ceil_mode.
# Known:    reports on ceil_mode are about windows wholly outside, on the evaluator about dilations; no report of these found.
# Seen (2026-11): 4 rows of 5 pixels, kernel 2, pads [1, 0, 1, 0]: shape (4, 5) in place of (5, 4). Mean of 0 to 6 with kernel
#           and stride 3: 0.5, 3, 5 in place of 1, 4, 6. onnxruntime is right in both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
cat > "$folder/finding.py" <<'EOF'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def run(operator, x, **attributes):
    """Results of the reference evaluator and of onnxruntime, and the shape that onnx infers."""
    node = helper.make_node(operator, ["x"], ["y"], **attributes)
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)
    graph = helper.make_graph([node], "pooling", [given], [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    whole = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(whole)
    inferred = whole.graph.output[0].type.tensor_type.shape.dim
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    reference, runtime = (evaluator.run(None, {"x": x})[0] for evaluator in (ReferenceEvaluator(model), session))
    return reference, runtime, tuple(d.dim_value for d in inferred)


def pooled(x, kernel, stride, pads, reduce):
    """Pooling along one axis as defined: windows at -pads[0] + i * stride, their pixels that lie inside."""
    count = -(-(len(x) + sum(pads) - kernel) // stride) + 1  # ceil
    return np.array([reduce(x[max(0, i * stride - pads[0]) : i * stride - pads[0] + kernel]) for i in range(count)])


print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}, numpy {np.__version__}")
rows = np.arange(4, dtype=np.float32)
x = np.repeat(rows[:, None], 5, axis=1)[None, None]  # (1, 1, 4, 5), each row its number
reference, runtime, inferred = run("MaxPool", x, kernel_shape=[2, 2], strides=[1, 1], pads=[1, 0, 1, 0])  # above and below
right = pooled(rows, 2, 1, (1, 1), np.max)
print(f"MaxPool, pads above and below: shape {reference.shape}, inferred {inferred}; onnxruntime {runtime.shape}")
print(f"  second column {reference[0, 0, :, 1]}, onnxruntime {runtime[0, 0, :, 1]}, defined {right}")
misread = reference.shape != inferred and np.array_equal(runtime[0, 0, :, 1], right)

errors = {}
line = np.arange(7, dtype=np.float32)
for size in (2, 3, 4):
    shape = {"kernel_shape": [size], "strides": [size]}
    reference, runtime, _ = run("AveragePool", line[None, None], ceil_mode=1, **shape)
    right = pooled(line, size, size, (0, 0), np.mean)
    errors[size] = [np.abs(result[0, 0] - right).max() for result in (reference, runtime)]
    print(f"mean of 0..6, kernel and stride {size}: {reference[0, 0]}, onnxruntime {runtime[0, 0]}, defined {right}")
if not misread or errors[3][0] < 0.1 or max(runtime_error for _, runtime_error in errors.values()) > 1e-6:
    sys.exit("no longer so: the reference evaluator pools where the specification says")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
