// A simulated CUDA device for a CPU build of torch: true `torch.Tensor`s on `cuda:0` and `cuda:1` whose bytes lie in host memory.
//
// Every operator that has no kernel for CUDA ends in `compute`: it checks what a CUDA kernel would check, gives the operator the
// same bytes as CPU tensors, and hands its results back as CUDA tensors; views stay views. Autograd, autocast (CUDA's own lists),
// inference mode, pickling and torch.compile's tracing are torch's own. What is refused here is refused by CUDA:
// tensors of two devices, integer matrix products, generators and values of another device, more memory than the device has.
// Counted: waits of the host for the device (`sim_on_wait`), and bytes that are allocated. Copies to pinned memory that do not
// block arrive when the host waits; until then the memory holds poison, so that reading too early shows.

#include <ATen/ATen.h>
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstring>
#include <list>
#include <map>
#include <mutex>
#include <set>

namespace {

constexpr int kDevices = 2;
constexpr uint64_t kBlock = 512; // bytes; CUDA's allocator rounds up to it
thread_local c10::DeviceIndex current = 0;

c10::Device cuda(int index) { return {c10::kCUDA, static_cast<c10::DeviceIndex>(index)}; }

// ---- memory ----------------------------------------------------------------------------------------------------------------

struct Memory {
  uint64_t now = 0, peak = 0, limit = UINT64_MAX;
};
Memory memory[kDevices];
std::mutex guard;

void take(int device, uint64_t bytes) {
  std::lock_guard<std::mutex> lock(guard);
  Memory& m = memory[device];
  TORCH_CHECK_WITH(
      OutOfMemoryError, m.now + bytes <= m.limit, "CUDA out of memory. Tried to allocate ", bytes, " bytes. GPU ", device,
      " has a total capacity of ", m.limit, " bytes of which ", m.limit - std::min(m.now, m.limit), " bytes is free.");
  m.now += bytes;
  m.peak = std::max(m.peak, m.now);
}

struct Block { // what a CUDA storage holds: the CPU storage with its bytes
  c10::Storage host;
  int device;
  uint64_t bytes;
};

void release(void* context) {
  auto* block = static_cast<Block*>(context);
  {
    std::lock_guard<std::mutex> lock(guard);
    memory[block->device].now -= block->bytes;
  }
  delete block;
}

c10::DataPtr on_device(const c10::Storage& host, int device) {
  uint64_t bytes = (host.nbytes() + kBlock - 1) / kBlock * kBlock;
  take(device, bytes);
  return {const_cast<void*>(host.data()), new Block{host, device, bytes}, release, cuda(device)};
}

c10::Storage host_bytes(size_t bytes) {
  return c10::Storage(c10::Storage::use_byte_size_t(), bytes, c10::GetCPUAllocator(), true);
}

struct DeviceAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override { return on_device(host_bytes(bytes), current); }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
} device_allocator;

std::map<const char*, size_t> pinned; // address and bytes

struct PinnedAllocator final : at::HostAllocator {
  static void unpin(void* data) {
    {
      std::lock_guard<std::mutex> lock(guard);
      pinned.erase(static_cast<char*>(data));
    }
    std::free(data);
  }
  c10::DataPtr allocate(size_t bytes) override {
    void* data = std::malloc(std::max<size_t>(bytes, 1));
    std::lock_guard<std::mutex> lock(guard);
    pinned[static_cast<char*>(data)] = bytes;
    return {data, data, unpin, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return unpin; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
  bool record_event(void*, void*, c10::Stream) override { return true; }
  void empty_cache() override {}
  at::HostStats get_stats() override { return {}; }
  void reset_accumulated_stats() override {}
  void reset_peak_stats() override {}
} pinned_allocator;

bool is_pinned(const void* data) {
  std::lock_guard<std::mutex> lock(guard);
  auto block = pinned.upper_bound(static_cast<const char*>(data));
  if (block == pinned.begin()) return false;
  --block;
  return static_cast<const char*>(data) < block->first + std::max<size_t>(block->second, 1);
}

// ---- waiting ---------------------------------------------------------------------------------------------------------------

void (*on_wait)(const char*) = nullptr;

struct Arrival { // a copy to pinned memory that the host may not read yet
  uint64_t number;
  at::Tensor to, value;
};
std::list<Arrival> arrivals;
uint64_t arrived_last = 0;

void deliver(uint64_t up_to) {
  while (true) {
    Arrival next;
    {
      std::lock_guard<std::mutex> lock(guard);
      if (arrivals.empty() || arrivals.front().number > up_to) return;
      next = arrivals.front();
      arrivals.pop_front();
    }
    at::AutoDispatchBelowADInplaceOrView below;
    next.to.copy_(next.value);
  }
}

void wait(const char* why) {
  if (on_wait != nullptr) on_wait(why);
  deliver(UINT64_MAX);
}

// ---- tensors of both sides -------------------------------------------------------------------------------------------------

at::Tensor shaped(at::Tensor tensor, const at::Tensor& like) {
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  if (like.is_conj()) tensor._set_conj(true);
  return tensor;
}

class Call { // one operator's tensors seen from the host, and its results seen from the device again
 public:
  at::Tensor host(const at::Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_cuda()) return tensor;
    auto& seen = hosts_[tensor.unsafeGetTensorImpl()];
    if (!seen.second.defined()) {
      c10::DispatchKeySet key(c10::DispatchKey::CPU);
      seen = {tensor, shaped(at::detail::make_tensor<c10::TensorImpl>(bytes_of(tensor), key, tensor.dtype()), tensor)};
    }
    return seen.second;
  }

  at::Tensor device(const at::Tensor& result, int index) {
    if (!result.defined() || result.is_cuda()) return result;
    for (auto& [impl, pair] : hosts_)
      if (pair.second.is_same(result)) return pair.first;
    auto* bytes = result.storage().unsafeGetStorageImpl();
    if (auto base = bases_.find(bytes); base != bases_.end()) // a view, of an inference tensor where its base is one
      return shaped(
          at::detail::make_tensor<c10::TensorImpl>(
              c10::TensorImpl::VIEW, c10::Storage(base->second.storage()), base->second.key_set(), result.dtype()),
          result);
    c10::Storage storage(
        c10::Storage::use_byte_size_t(), bytes->nbytes(), on_device(result.storage(), index), &device_allocator, true);
    auto made = shaped(
        at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CUDA), result.dtype()),
        result);
    bases_.emplace(bytes, made);
    return made;
  }

  void write_back() { // an `out=` or a resize may have given a tensor other memory or another shape
    for (auto& [impl, pair] : hosts_) {
      const auto& [tensor, seen] = pair;
      auto* storage = tensor.storage().unsafeGetStorageImpl();
      if (seen.storage().data() != storage->data()) {
        storage->set_nbytes(seen.storage().nbytes());
        storage->set_data_ptr_noswap(on_device(seen.storage(), tensor.get_device()));
      }
      if (seen.sizes() != tensor.sizes() || seen.strides() != tensor.strides())
        tensor.unsafeGetTensorImpl()->set_sizes_and_strides(seen.sizes(), seen.strides(), seen.storage_offset());
    }
  }

 private:
  c10::Storage bytes_of(const at::Tensor& tensor) {
    const auto& device = tensor.storage();
    auto& host = hosts_bytes_[device.unsafeGetStorageImpl()];
    if (!host) {
      auto release = [](void* context) { delete static_cast<c10::Storage*>(context); };
      c10::DataPtr data(device.mutable_data(), new c10::Storage(device), release, c10::Device(c10::kCPU));
      host = c10::Storage(c10::Storage::use_byte_size_t(), device.nbytes(), std::move(data), c10::GetCPUAllocator(), true);
      bases_.emplace(host.unsafeGetStorageImpl(), tensor);
    }
    return host;
  }

  std::map<c10::TensorImpl*, std::pair<at::Tensor, at::Tensor>> hosts_;
  std::map<c10::StorageImpl*, c10::Storage> hosts_bytes_;
  std::map<c10::StorageImpl*, at::Tensor> bases_; // by the bytes seen from the host
};

template <typename F>
c10::IValue each(const c10::IValue& value, F&& of) { // `of` every tensor in an argument or a result
  if (value.isTensor()) return of(value.toTensor());
  if (value.isTensorList()) {
    std::vector<at::Tensor> out;
    for (const at::Tensor& tensor : value.toTensorVector()) out.push_back(of(tensor));
    return out;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> out;
    for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector())
      out.push_back(tensor.has_value() ? std::optional<at::Tensor>(of(*tensor)) : std::nullopt);
    return out;
  }
  return value;
}

// ---- what CUDA refuses, and where it makes the host wait -------------------------------------------------------------------

const std::set<std::string> kWaits = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2", "aten::unique_dim"};
const std::set<std::string> kProducts = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"};
const std::set<std::string> kPointwise = {"aten::floor_divide", "aten::floor_divide_"}; // which torch does not tag as such
const std::set<std::string> kMixed = { // take tensors of both devices, or check by rules of their own
    "aten::index", "aten::_unsafe_index", "aten::index_put_", "aten::_index_put_impl_", "aten::index_put", "aten::fill_",
    "aten::masked_fill_", "aten::is_same_size", "aten::lift_fresh", "aten::lift"};

struct Arguments {
  const c10::OperatorHandle& op;
  c10::ArrayRef<c10::IValue> values;

  const c10::IValue* named(const char* name) const {
    const auto& declared = op.schema().arguments();
    for (size_t i = 0; i < declared.size(); i++)
      if (declared[i].name() == name) return &values[i];
    return nullptr;
  }
};

void check_one_device(const Arguments& call, const std::vector<at::Tensor>& tensors) {
  // TensorIterator takes scalars of the host; other kernels do not.
  bool scalars = call.op.hasTag(at::Tag::pointwise) || kPointwise.count(call.op.schema().name()) > 0;
  const at::Tensor* first = nullptr;
  for (const auto& tensor : tensors)
    if (tensor.is_cuda() && (first == nullptr || first->dim() == 0)) first = &tensor;
  for (const auto& tensor : tensors)
    TORCH_CHECK(
        tensor.device() == first->device() || (scalars && tensor.dim() == 0),
        "Expected all tensors to be on the same device, but found at least two devices, ", first->device(), " and ",
        tensor.device(), "! (", call.op.schema().name(), ")");
}

void check_index(const Arguments& call) {
  const auto& self = call.values[0].toTensor();
  for (const std::optional<at::Tensor>& index : call.values[1].toOptionalTensorVector()) {
    if (!index.has_value() || !index->defined()) continue;
    TORCH_CHECK(
        !index->is_cuda() || index->device() == self.device(), "indices should be either on cpu or on the same device as the ",
        "indexed tensor (", self.device(), ")");
    bool mask = index->scalar_type() == at::kBool || index->scalar_type() == at::kByte;
    bool reads = call.op.schema().name() == "aten::index"; // which has asked `nonzero` and copied indices before, and was counted
    if (self.is_cuda() && !reads && (mask || !index->is_cuda())) wait(mask ? "nonzero" : "copy from the host");
  }
  if (call.values.size() > 2 && call.values[2].isTensor()) {
    const auto& value = call.values[2].toTensor();
    TORCH_CHECK(value.device() == self.device() || value.dim() == 0, "expected values on ", self.device(), ", not on ", value.device());
  }
}

void check(const Arguments& call, const std::vector<at::Tensor>& tensors, int index) {
  const auto& name = call.op.schema().name();
  bool any = std::any_of(tensors.begin(), tensors.end(), [](const auto& t) { return t.is_cuda(); });
  if (name.rfind("aten::index", 0) == 0 && call.values.size() > 1 && call.values[1].isOptionalTensorList()) check_index(call);
  else if (any && kMixed.count(name) == 0) check_one_device(call, tensors);
  if (const auto* generator = call.named("generator"); generator != nullptr && generator->isGenerator())
    TORCH_CHECK(
        generator->toGenerator().device().is_cuda(), "Expected a 'cuda' device type for generator but found '",
        generator->toGenerator().device(), "'");
  if (kProducts.count(name) > 0)
    for (const auto& tensor : tensors)
      TORCH_CHECK_NOT_IMPLEMENTED(
          at::isFloatingType(tensor.scalar_type()) || at::isComplexType(tensor.scalar_type()), "\"addmm_cuda\" not implemented for '",
          c10::toString(tensor.scalar_type()), "'");
  if (name == "aten::_int_mm") TORCH_CHECK(tensors[0].size(0) > 16, "self.size(0) needs to be greater than 16, but got ", tensors[0].size(0));
  if (any && kWaits.count(name) > 0) wait(name.c_str() + 6);
}

// ---- the kernel of every operator ------------------------------------------------------------------------------------------

void compute(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  size_t count = op.schema().arguments().size();
  Call call;
  std::vector<at::Tensor> tensors;
  int index = current;
  {
    auto values = torch::jit::last(*stack, count);
    for (const auto& value : values)
      each(value, [&](const at::Tensor& tensor) {
        if (tensor.defined()) tensors.push_back(tensor);
        return tensor;
      });
    auto first = std::find_if(tensors.begin(), tensors.end(), [](const auto& t) { return t.is_cuda(); });
    if (first != tensors.end()) index = first->get_device();
    check({op, values}, tensors, index);
  }
  bool to_host = false;
  for (size_t i = 0; i < count; i++) {
    auto& value = torch::jit::peek(*stack, i, count);
    if (value.isDevice()) {
      to_host = !value.toDevice().is_cuda();
      if (value.toDevice().is_cuda() && value.toDevice().has_index()) index = value.toDevice().index();
      value = c10::Device(c10::kCPU);
    } else {
      value = each(value, [&](const at::Tensor& tensor) { return call.host(tensor); });
    }
  }
  {
    at::AutoDispatchBelowADInplaceOrView below;
    c10::InferenceMode normal(false);
    op.callBoxed(stack);
  }
  call.write_back();
  size_t results = op.schema().returns().size();
  for (size_t i = 0; i < results && !to_host; i++) {
    auto& value = torch::jit::peek(*stack, i, results);
    value = each(value, [&](const at::Tensor& tensor) { return call.device(tensor, index); });
  }
}

at::Tensor& copy(at::Tensor& self, const at::Tensor& source, bool non_blocking) {
  Call call;
  at::AutoDispatchBelowADInplaceOrView below;
  at::Tensor to = call.host(self), from = call.host(source);
  bool leaves = source.is_cuda() && !self.is_cuda(), enters = self.is_cuda() && !source.is_cuda();
  if (leaves && non_blocking && is_pinned(self.storage().data()) && self.is_contiguous()) {
    at::Tensor value = from.to(to.scalar_type(), false, true).expand(to.sizes()).clone();
    std::memset(to.mutable_data_ptr(), 0xA5, to.nbytes());
    std::lock_guard<std::mutex> lock(guard);
    arrivals.push_back({++arrived_last, to, value});
    return self;
  }
  if (leaves) wait("copy to the host");
  if (enters && !non_blocking) wait("copy from the host");
  to.copy_(from);
  return self;
}

at::Tensor& set_storage(at::Tensor& self, c10::Storage source, c10::SymInt offset, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(source));
  auto sizes = C10_AS_INTARRAYREF_SLOW(size);
  if (stride.empty()) impl->set_sizes_contiguous(sizes);
  else impl->set_sizes_and_strides(sizes, C10_AS_INTARRAYREF_SLOW(stride));
  impl->set_storage_offset(offset.expect_int());
  return self;
}

at::Tensor& set_whole_storage(at::Tensor& self, c10::Storage source) {
  auto count = static_cast<int64_t>(source.nbytes() / self.dtype().itemsize());
  return set_storage(self, std::move(source), 0, {c10::SymInt(count)}, {});
}

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&compute>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  // These have a kernel for all devices, which asks by name for CUDA's own code.
  for (const char* name : {"convolution", "convolution_backward", "native_group_norm", "index_put_", "_index_put_impl_", "_fused_sdp_choice"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&compute>());
  m.impl("copy_", copy);
  m.impl("set_.source_Storage", set_whole_storage);
  m.impl("set_.source_Storage_storage_offset", set_storage);
}

// ---- the device as the rest of torch asks for it ---------------------------------------------------------------------------

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device exchangeDevice(c10::Device device) const override {
    auto old = cuda(current);
    current = device.index();
    return old;
  }
  c10::Device getDevice() const override { return cuda(current); }
  void setDevice(c10::Device device) const override { current = device.index(); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current = device.index(); }
  c10::Stream getStream(c10::Device device) const override { return c10::Stream(c10::Stream::DEFAULT, device); }
  c10::Stream getDefaultStream(c10::Device device) const override { return c10::Stream(c10::Stream::DEFAULT, device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return kDevices; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override { wait("stream"); }
  void synchronizeDevice(const c10::DeviceIndex) const override { wait("device"); }
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

struct Hooks final : at::CUDAHooksInterface {
  Hooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kDevices; }
  int getNumGPUs() const override { return kDevices; }
  c10::DeviceIndex current_device() const override { return current; }
  c10::DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(c10::DeviceIndex device) const override { current = device; }
  at::Allocator* getCUDADeviceAllocator() const override { return &device_allocator; }
  at::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
};

[[maybe_unused]] const bool registered = [] {
  // `import torch` has already made its hooks, those of a build without CUDA, and keeps them. Neither class has data, so the
  // object becomes one of ours by its table of methods.
  static const Hooks ours{at::CUDAHooksArgs{}};
  auto* theirs = const_cast<at::CUDAHooksInterface*>(&at::detail::getCUDAHooks());
  std::memcpy(static_cast<void*>(theirs), static_cast<const void*>(&ours), sizeof(void*));
  c10::SetAllocator(c10::kCUDA, &device_allocator);
  at::setHostAllocator(c10::kCUDA, &pinned_allocator, 255);
  return true;
}();

} // namespace

extern "C" {
void sim_on_wait(void (*call)(const char*)) { on_wait = call; }
void sim_wait(const char* why) { wait(why); }
uint64_t sim_mark() { return arrived_last; } // an event: everything that was queued before it
void sim_wait_for(uint64_t mark) {
  if (on_wait != nullptr) on_wait("event");
  deliver(mark);
}
void sim_set_device(int device) { current = static_cast<c10::DeviceIndex>(device); }
int sim_device() { return current; }
void sim_limit(int device, uint64_t bytes) { memory[device].limit = bytes; }
uint64_t sim_allocated(int device) { return memory[device].now; }
uint64_t sim_peak(int device) { return memory[device].peak; }
void sim_reset_peak(int device) { memory[device].peak = memory[device].now; }
}
