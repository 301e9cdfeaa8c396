// Trains a digit classifier that nncompile compiled, with libtorch alone.
//
//   python examples/cpp/prepare.py build
//   cmake -S examples/cpp -B build -DCMAKE_BUILD_TYPE=Release \
//     -DTORCH="$(python -c 'import torch, os; print(os.path.dirname(torch.__file__))')"
//   cmake --build build
//   build/train_digits build/digits.step.pt build/digits.bin build/trained.step.pt 20
//
// The file holds the network, its gradients and its optimizer, and the whole state: `train_step`
// changes it, and saving the module keeps it. `evaluate` and `forward` are the network as it is
// used. Nothing here knows what the network is, but for the names of its metrics.

#include <torch/script.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Digits {
  torch::Tensor images, labels;
};

torch::Tensor read(std::ifstream& file, std::vector<int64_t> shape, torch::Dtype type) {
  auto tensor = torch::empty(shape, type);
  if (!file.read(static_cast<char*>(tensor.data_ptr()), tensor.nbytes()))
    throw std::runtime_error("the file of the digits is too short");
  return tensor;
}

Digits read_digits(std::ifstream& file, int64_t count, int64_t height, int64_t width) {
  auto images = read(file, {count, 1, height, width}, torch::kFloat32);
  return {images, read(file, {count}, torch::kInt64)};
}

double number(const c10::IValue& metrics, const std::string& name) {
  return metrics.toGenericDict().at(name).toTensor().item<double>();
}

int main(int count, char** arguments) try {
  if (count < 4) {
    std::fprintf(stderr, "usage: %s STEP.pt DIGITS.bin OUT.pt [EPOCHS]\n", arguments[0]);
    return 2;
  }
  const int epochs = count > 4 ? std::stoi(arguments[4]) : 20;
  const int64_t batch = 64;

  auto step = torch::jit::load(arguments[1]);
  std::ifstream file(arguments[2], std::ios::binary);
  const auto sizes = read(file, {4}, torch::kInt64);
  const auto size = sizes.accessor<int64_t, 1>();
  const auto train = read_digits(file, size[0], size[2], size[3]);
  const auto held_out = read_digits(file, size[1], size[2], size[3]);

  const auto train_step = step.get_method("train_step");
  const auto evaluate = step.get_method("evaluate");
  step.get_method("reset")({int64_t{0}});  // as it begins: the weights that seed 0 draws
  torch::manual_seed(0);                   // of the order of the digits

  for (int epoch = 1; epoch <= epochs; ++epoch) {
    double loss = 0, accuracy = 0;
    int64_t steps = 0;
    for (const auto& rows : torch::randperm(size[0]).split(batch)) {
      const auto metrics =
          train_step({train.images.index_select(0, rows), train.labels.index_select(0, rows)});
      loss += number(metrics, "loss");
      accuracy += number(metrics, "accuracy");
      ++steps;
    }
    if (epoch % 5 && epoch != 1 && epoch != epochs) continue;
    const auto metrics = evaluate({held_out.images, held_out.labels});
    std::printf("epoch %3d  loss %.4f  accuracy %.4f  held out: loss %.4f  accuracy %.4f\n", epoch,
                loss / steps, accuracy / steps, number(metrics, "loss"),
                number(metrics, "accuracy"));
  }

  step.save(arguments[3]);
  const auto again = torch::jit::load(arguments[3]);
  const auto made = again.attr("step").toTensor().item<int64_t>();
  const auto metrics = again.get_method("evaluate")({held_out.images, held_out.labels});
  std::printf("saved after %lld steps; read again: held out accuracy %.4f\n",
              static_cast<long long>(made), number(metrics, "accuracy"));
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
